"""Predictions as a table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from endpoint_operator.cli.asked import Asked

_FEW: Final = 4
_LONGEST_TEXT: Final = 60


def answer_table(asked: Sequence[Asked], predictions: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each question, with a column for each member of its prediction."""
    members = list(dict.fromkeys(name for prediction in predictions for name in prediction))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("text", *members):
        table.add_column(name.upper().replace("_", " "), overflow="fold")
    for question, prediction in zip(asked, predictions, strict=True):
        cells = [_question(question), *(cell(prediction.get(name, "")) for name in members)]
        # As Text, so that nothing that a model says is taken for markup.
        table.add_row(*map(Text, cells))
    return table


def _question(asked: Asked) -> str:
    text = asked if isinstance(asked, str) else " | ".join(asked.values())
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}…"


def cell(value: Any) -> str:
    """Return a member of a prediction in a few words; a list of objects has one line for each of them."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {cell(each)}" for name, each in value.items())
    if not isinstance(value, list):
        return str(value)
    if value and isinstance(value[0], Mapping):
        return "\n".join(map(cell, value))
    shown = ", ".join(map(cell, value[:_FEW]))
    return shown if len(value) <= _FEW else f"{shown}, … ({len(value)} in all)"
