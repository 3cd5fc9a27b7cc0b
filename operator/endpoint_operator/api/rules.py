"""Rules that JSON Schema cannot express, each as CEL for the API server and as Python.

Kubernetes evaluates `cel` at `kubectl apply`. `holds` is the same rule for manifests that no API server has
seen. A test runs both forms on the same objects.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Rule:
    """One rule about an object, in both forms, and the message if it is broken.

    `fields` are the dotted camelCase paths that it compares; the complaint shows their values.
    """

    fields: tuple[str, ...]
    cel: str
    message: str
    holds: Callable[[Any], bool]

    def complaint(self, model: Any) -> str:
        """Return the message with the offending values of `model`."""
        shown = ", ".join(f"{path} {value_at(model, path)!r}" for path in self.fields)
        return f"{self.message}; got {shown}"


def matches(path: str, pattern: str, message: str) -> Rule:
    """Rule: the whole string at the dotted camelCase `path` matches `pattern`."""
    compiled = re.compile(pattern)

    def holds(model: Any) -> bool:
        return compiled.fullmatch(value_at(model, path)) is not None

    return Rule((path,), f"self.{path}.matches(r'^(?:{pattern})$')", message, holds)


def at_most(lower: str, upper: str, message: str) -> Rule:
    """Rule: the number at the path `lower` is not above the number at the path `upper`."""

    def holds(model: Any) -> bool:
        return bool(value_at(model, lower) <= value_at(model, upper))

    return Rule((lower, upper), f"self.{lower} <= self.{upper}", message, holds)


def value_at(model: Any, path: str) -> Any:
    """Return the value at a dotted camelCase path of a model."""
    for part in path.split("."):
        model = getattr(model, snake_case(part))
    return model


def snake_case(name: str) -> str:
    """Convert the name of a camelCase field to that of the Python attribute."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1].lower()}", name)


# An RFC 1123 label of at most 40 characters: it is used as an application name, a path and a metric label.
NAME_PATTERN: Final = r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?"

_PRINTABLE = r"[^\x00-\x20\x7f]+"
_HUB_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
URI_PATTERN: Final = "|".join(
    (
        rf"hf://{_HUB_PART}/{_HUB_PART}",
        rf"file:///{_PRINTABLE}",
        rf"pvc://[a-z0-9]([-a-z0-9]*[a-z0-9])?/{_PRINTABLE}",
        rf"package://[A-Za-z_][A-Za-z0-9_]*(/{_PRINTABLE})?",
    )
)

MEMORY_RULE: Final = matches(
    "memory",
    r"[1-9][0-9]{0,9}(Ki|Mi|Gi|Ti|k|M|G|T)?",
    "memory must be a whole number such as 512Mi, 2Gi or 4G",
)
