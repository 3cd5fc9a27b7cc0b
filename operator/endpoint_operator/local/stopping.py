"""The request to stop: the first SIGINT or SIGTERM, at any time."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by SIGINT and SIGTERM.

    While models run, the first one only sets `event`, so that requests in work are finished. At other times,
    and when it is repeated, it raises KeyboardInterrupt: nothing is lost, and what runs may take long.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self._graceful = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        at_once = self.event.is_set() or not self._graceful
        self.event.set()
        if at_once:
            raise KeyboardInterrupt

    @contextmanager
    def graceful(self) -> Iterator[threading.Event]:
        """Yield the event; within the block, the first signal does nothing but set it."""
        self._graceful = True
        try:
            yield self.event
        finally:
            self._graceful = False


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Yield the request to stop, which signals make until the end of the block."""
    request = StopRequest()
    previous = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
