"""Hold sentences with their label and read them from a list; must not know any model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """One text and the label a model should give it."""

    label: str
    text: str


def read_examples(path: Path, labels: Sequence[str]) -> list[Example]:
    """Read a list of `label<TAB>text` lines."""
    return [
        _parse_line(line, labels, f"{path.name} line {number}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    ]


def read_columns(path: Path) -> Iterator[list[str]]:
    """Yield the tab-separated columns of each line of a lexicon."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")


def _parse_line(line: str, labels: Sequence[str], place: str) -> Example:
    label, separator, text = line.partition("\t")
    if not separator or not text.strip():
        raise ValueError(f"{place}: expected 'label<TAB>text', got {line!r}")
    if label not in labels:
        raise ValueError(f"{place}: label {label!r} is not one of {', '.join(labels)}")
    return Example(label, text.strip())
