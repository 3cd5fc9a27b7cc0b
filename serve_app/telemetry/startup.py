"""The time from the start of a replica's process to its first answer, by phase."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

# Ray passes to each worker when its start began, in milliseconds since 1970.
_LAUNCHED: Final = "--worker-launch-time-ms="

logger = logging.getLogger("ray.serve")


class StartupTimer:
    """Seconds by phase, in order. A phase that runs twice has the sum of both times."""

    def __init__(self, before: float) -> None:
        """`before` is the number of seconds that have passed in the process already."""
        self._phases = {"process": before}

    @classmethod
    def of_this_worker(cls) -> "StartupTimer":
        """Return a timer that began when Ray started this process; outside of Ray, one that begins now."""
        return cls(seconds_since_launch(sys.argv, time.time()))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to the phase `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + time.monotonic() - started

    def split(self, name: str, part: str, seconds: float) -> None:
        """Take `seconds` out of the phase `name` for a phase of their own."""
        self._phases[name] -= seconds
        self._phases[part] = self._phases.get(part, 0.0) + seconds

    def report(self) -> dict[str, float]:
        """Return the seconds of each phase and their total, rounded to milliseconds."""
        total = sum(self._phases.values())
        return {
            f"{name}_seconds": round(value, 3) for name, value in {**self._phases, "total": total}.items()
        }

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self._phases.items())
        return f"{sum(self._phases.values()):.2f} s ({parts})"


def seconds_since_launch(arguments: Sequence[str], now: float) -> float:
    """Return the time since the launch that is in a worker's `arguments`; 0 if there is none."""
    for argument in arguments:
        milliseconds = argument.removeprefix(_LAUNCHED)
        if milliseconds != argument and milliseconds.isdecimal():
            return max(0.0, now - int(milliseconds) / 1000)
    return 0.0
