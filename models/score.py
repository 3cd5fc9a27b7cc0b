"""Count right answers, keep the counts beside a model and refuse a bad one; must not run models."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from models.examples import Example

SCORE_FILE: Final = "heldout.json"
LEAST_SHARE: Final = 0.9


class LowScoreError(Exception):
    """A model did worse on its held-out list than may be published."""


@dataclass(frozen=True)
class Score:
    """How many answers were right, and the texts that got a wrong one."""

    right: int
    total: int
    wrong_texts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.right}/{self.total}"


def score_answers(examples: Sequence[Example], answers: Sequence[str]) -> Score:
    """Compare the answers with the labels of the examples."""
    wrong = tuple(
        example.text for example, answer in zip(examples, answers, strict=True) if answer != example.label
    )
    return Score(right=len(examples) - len(wrong), total=len(examples), wrong_texts=wrong)


def require_good_score(name: str, score: Score) -> None:
    """Raise LowScoreError when the score is below the least share."""
    if score.right < LEAST_SHARE * score.total:
        raise LowScoreError(
            f"model {name!r} got {score} of its held-out list right; at least {LEAST_SHARE:.0%} is needed"
        )


def write_scores(folder: Path, heldout: Score, development: Score) -> None:
    """Write both scores into the model's folder."""
    document = {"heldout": asdict(heldout), "development": asdict(development)}
    (folder / SCORE_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_heldout(folder: Path) -> str | None:
    """Return the held-out score of a built model as text, or None for a model without one."""
    path = folder / SCORE_FILE
    if not path.exists():
        return None
    heldout = json.loads(path.read_text(encoding="utf-8"))["heldout"]
    return f"{heldout['right']}/{heldout['total']}"
