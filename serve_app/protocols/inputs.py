"""Texts and pairs of texts as clients write them: by the names that the task has for them."""

from collections.abc import Mapping
from typing import Any, Final

from serve_app.contract import Task
from serve_app.engine.base import Engine, Input, TextPair
from serve_app.http.errors import InvalidInputError
from serve_app.text import quoted

# More than any head has, so that `top_k` returns all labels.
ALL_LABELS: Final = 1000


def as_list(value: Any) -> list[Any]:
    """Return one text as a list; a list's members are checked afterwards. For validators of pydantic."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ValueError(f"got {quoted(value)}; must be a text or a list of texts")
    return value


def input_of(value: Any, engine: Engine, where: str) -> Input:
    """Return the input that `value` is: a text, or an object with the texts of one input by their names.

    Raises InvalidInputError with `where`, the place of `value` in the request.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        pairs = f", or an object with {_names(engine)}" if len(engine.model.input_names) > 1 else ""
        raise InvalidInputError(f"{where}: got {quoted(value)}; must be a text{pairs}")
    names = engine.model.input_names
    for name, text in value.items():
        if name not in names:
            raise InvalidInputError(f"{where}: got {quoted(name)}; {engine.args.task} takes {_names(engine)}")
        if not isinstance(text, str):
            raise InvalidInputError(f"{where}.{name}: got {quoted(text)}; must be a text")
    missing = [name for name in names[: engine.model.inputs_required] if name not in value]
    if missing:
        raise InvalidInputError(
            f"{where}: {missing[0]} is missing; {engine.args.task} takes {_names(engine)}"
        )
    texts = [value[name] for name in names if name in value]
    return TextPair(*texts) if len(texts) > 1 else texts[0]


def _names(engine: Engine) -> str:
    names, required = engine.model.input_names, engine.model.inputs_required
    return " and ".join(names) if required == len(names) else f"{names[0]}, and {names[1]} if there is one"


def require_task(engine: Engine, task: Task, verb: str) -> None:
    """Raise InvalidInputError if the endpoint is one of another task than `verb` is for."""
    if engine.args.task != task:
        raise InvalidInputError(
            f"{engine.args.name} is an endpoint of {engine.args.task}; {verb} asks for one of {task}"
        )


def require_model(engine: Engine, name: str | None) -> None:
    """Raise InvalidInputError if the request names another model than this one."""
    if name not in (None, engine.args.name):
        raise InvalidInputError(
            f"model: got {quoted(name)}, and this is {engine.args.name!r}", member="model"
        )
