"""How long a replica took from the start of its process to its first answer, and on what."""

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

# Ray tells each worker when it began to start it, in milliseconds since 1970.
_LAUNCHED: Final = "--worker-launch-time-ms="

logger = logging.getLogger("ray.serve")


class StartupTimer:
    """Seconds by phase, in the order in which they passed; a phase that is run twice counts twice."""

    def __init__(self, before: float) -> None:
        """`before` are the seconds that passed before this."""
        self._phases = {"process": before}

    @classmethod
    def of_this_worker(cls) -> "StartupTimer":
        """Return one that has counted since Ray started this process; from now on outside of Ray."""
        return cls(seconds_since_launch(sys.argv, time.time()))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time until the end of the block as `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + time.monotonic() - started

    def report(self) -> dict[str, float]:
        """Return the seconds of each phase and of all together, to the millisecond."""
        total = sum(self._phases.values())
        return {
            f"{name}_seconds": round(value, 3) for name, value in {**self._phases, "total": total}.items()
        }

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self._phases.items())
        return f"{sum(self._phases.values()):.2f} s ({parts})"


def seconds_since_launch(arguments: Sequence[str], now: float) -> float:
    """Return the time since the launch that a worker's `arguments` tell; 0 if they tell none."""
    for argument in arguments:
        milliseconds = argument.removeprefix(_LAUNCHED)
        if milliseconds != argument and milliseconds.isdecimal():
            return max(0.0, now - int(milliseconds) / 1000)
    return 0.0
