"""What the gateway itself refuses: unknown models, models that do not answer, keys that may not ask.

The replica counts what the gateway relays, so that no request is counted twice.
"""

import asyncio
import re
from typing import Final

from serve_app.http.errors import ServingError
from serve_app.protocols.kserve_v1 import V1_PREDICT
from serve_app.replica.hand_over import HandOver
from serve_app.replica.metrics import OTHER, RequestCounter

_OF_A_MODEL: Final = re.compile(r"/v2/models/[^/]*(?:/versions/[^/]*)?/")


class Refusals:
    """Counts errors by the protocol of their path, status and code; Ray gets them from the first one on."""

    def __init__(self) -> None:
        self.counter = RequestCounter()
        self._hand_over: asyncio.Task[None] | None = None

    def note(self, path: str, error: ServingError) -> None:
        """Count one more, on the event loop. Whatever the path names, its label is one of a few."""
        self.counter.add(verb_of(path), error.status, error.code)
        if self._hand_over is None:
            self._hand_over = asyncio.create_task(HandOver([self.counter.tally]).run())


def verb_of(path: str) -> str:
    """Return what is asked of a model at `path`, by its path below that of the model."""
    if path.startswith("/v1/models/") and path.endswith(":predict"):
        return V1_PREDICT
    return _OF_A_MODEL.sub("", path, count=1).strip("/") or OTHER
