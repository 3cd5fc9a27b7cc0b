"""The names of a head's outputs, as config.json states them."""

from pathlib import Path
from typing import Any

from serve_app.engine.base import ModelLoadError
from serve_app.text import quoted


def label_names(folder: Path, config: Any) -> list[str]:
    """Return one name for each output of the head; those without a name get transformers' own.

    Raises ModelLoadError if id2label names an output that the head does not have.
    """
    count = int(config.num_labels)
    names = dict(config.id2label or {})
    outside = [number for number in names if not 0 <= int(number) < count]
    if outside:
        raise ModelLoadError(
            f"{folder}/config.json: id2label has {count} labels and numbers one of them {outside[0]}; "
            f"the numbers must be 0 to {count - 1}"
        )
    return [str(names.get(number, f"LABEL_{number}")) for number in range(count)]


def entailment_index(folder: Path, config: Any, task: str) -> int:
    """Return the number of the output that says that a text entails a hypothesis.

    Raises ModelLoadError if there is none, or if id2label and label2id disagree.
    """
    names = label_names(folder, config)
    by_name = {str(label): number for label, number in (config.label2id or {}).items()}
    found = [index for index, name in enumerate(names) if name.lower().startswith("entail")]
    stated = [number for label, number in by_name.items() if label.lower().startswith("entail")]
    try:
        numbers = {*found, *(int(number) for number in stated)}
    except (TypeError, ValueError):
        raise ModelLoadError(
            f"{folder}/config.json: label2id: got {quoted(stated[0])}; must be a number"
        ) from None
    if not numbers:
        raise ModelLoadError(
            f"{folder} was not trained for {task}: it has no label 'entailment', only {', '.join(names)}"
        )
    if len(numbers) > 1 or not 0 <= min(numbers) < len(names):
        shown = " and ".join(map(str, sorted(numbers)))
        raise ModelLoadError(
            f"{folder}/config.json: id2label and label2id give the label 'entailment' the numbers {shown}; "
            f"it must be one of 0 to {len(names) - 1}"
        )
    return min(numbers)
