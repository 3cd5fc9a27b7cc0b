"""Let a write to the cluster begin only while this process may write, and end it before another one may.

Without a time limit of its own, a write could hang until long after another operator has taken over.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from endpoint_operator.kube.errors import KubeError


class WritesEndedError(KubeError):
    """A write was not begun, because this process may not write, or no more."""


def now() -> float:
    """Return the seconds of a clock that nobody sets; on Linux it counts while the machine sleeps, too."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class WriteGate:
    """Closed until it is opened, for good or for a time."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self._clock = clock
        self._begin_until = -math.inf
        self._end_until = -math.inf
        self._under_way = 0
        self._abandoned = False
        self._idle = asyncio.Event()
        self._idle.set()

    def open(self, begin_until: float = math.inf, end_until: float = math.inf) -> None:
        """Let writes begin until `begin_until`, and give up at `end_until` those that have not ended."""
        self._begin_until = begin_until
        self._end_until = end_until

    def close(self) -> None:
        """Let no other write begin; those that are under way go on to their end."""
        self._begin_until = -math.inf

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """Run one write in the block.

        Raises WritesEndedError if it may not begin, TimeoutError if it is given up.
        """
        begun = self._clock()
        if begun >= self._begin_until:
            raise WritesEndedError("nothing is written: this operator does not lead, or it ends")
        left = self._end_until - begun
        self._under_way += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(left if math.isfinite(left) else None):
                yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Let no other write begin, and wait for those under way, but not longer than `seconds`."""
        self.close()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            self._abandoned = True

    @property
    def is_drained(self) -> bool:
        """Whether no write is under way, and `drain` has waited for all of them."""
        return self._idle.is_set() and not self._abandoned
