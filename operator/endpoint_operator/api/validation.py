"""Turn pydantic's errors into sentences that name the field, its value and what is allowed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serve_app.parameters import PARAMETER_VALUES, is_parameter_value
from serve_app.text import quoted


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a manifest.

    `path` has the keys and list positions from the document's root to the field.
    """

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        where = ".".join(str(part) for part in self.path)
        return f"{where}: {self.message}" if where else self.message


def describe(error: ValidationError, model: type[BaseModel]) -> tuple[Problem, ...]:
    """Return one problem for each field that `error`, raised by `model`, reports."""
    return _first_of_each_path(
        Problem(_path(detail), _sentence(detail, model)) for detail in error.errors(include_url=False)
    )


def _first_of_each_path(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    # pydantic reports a value that fits no member of a union once for each member.
    unique: dict[tuple[str | int, ...], Problem] = {}
    for problem in problems:
        unique.setdefault(problem.path, problem)
    return tuple(unique.values())


def _path(detail: ErrorDetails) -> tuple[str | int, ...]:
    parts = list(detail["loc"])
    if detail["type"] == "rule":
        return (*parts, *detail["ctx"]["field"].split("."))
    if "parameters" in parts:
        # Below a parameter's name, pydantic adds the members of the union that it tried.
        return tuple(parts[: parts.index("parameters") + 2])
    return tuple(parts)


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind = detail["type"]
    if kind == "rule":
        return detail["msg"]
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return f"unknown field; allowed here: {', '.join(_siblings(detail, model))}"
    if is_parameter_value(detail["loc"]):
        return f"got {quoted(detail['input'])}; must be {PARAMETER_VALUES}"
    return f"got {quoted(detail['input'])}; {_lower_first(detail['msg'])}"


def _siblings(detail: ErrorDetails, model: type[BaseModel]) -> list[str]:
    for part in detail["loc"][:-1]:
        for field in model.model_fields.values():
            # The model of a list's items is its only type argument.
            nested = next(iter(get_args(field.annotation)), field.annotation)
            if field.alias == part and isinstance(nested, type) and issubclass(nested, BaseModel):
                model = nested
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
