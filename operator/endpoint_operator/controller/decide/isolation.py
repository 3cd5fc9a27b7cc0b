"""Keep an error in the decision about one endpoint from the others; pure."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from endpoint_operator.controller.observed.endpoint import internal_error

Result = TypeVar("Result")


@dataclass
class Isolation:
    """The errors of one round by endpoint: a message for its status, and the traceback for the log."""

    messages: dict[str, str] = field(default_factory=dict)
    tracebacks: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, call: Callable[[], Result], otherwise: Result) -> Result:
        """Return what `call` returns; `otherwise` if it raises an error or an earlier call for `name` did."""
        if name in self.messages:
            return otherwise
        try:
            return call()
        except Exception as error:
            self.messages[name] = internal_error(error)
            self.tracebacks[name] = traceback.format_exc()
            return otherwise
