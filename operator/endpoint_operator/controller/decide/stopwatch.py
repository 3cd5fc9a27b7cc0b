"""Measure how long a fact has held without a break; pure, the time is passed in."""

from collections.abc import Hashable
from typing import TypeVar

Value = TypeVar("Value")


class Stopwatch:
    """Timers of facts; the timer of a fact that a round does not ask for starts again."""

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}
        self._noted: dict[Hashable, object] = {}
        self._asked: set[Hashable] = set()
        self._now = 0.0
        self._due: float | None = None

    def begin(self, now: float) -> None:
        """Start a round, and drop the timers that the last round did not ask for."""
        self._since = {fact: since for fact, since in self._since.items() if fact in self._asked}
        self._noted = {fact: value for fact, value in self._noted.items() if fact in self._asked}
        self._asked.clear()
        self._now = now
        self._due = None

    def held(self, fact: Hashable, seconds: float) -> bool:
        """Return whether `fact`, which holds now, has held in every round of the last `seconds`."""
        self._asked.add(fact)
        left = self._since.setdefault(fact, self._now) + seconds - self._now
        if left > 0:
            self.wake_after(left)
        return left <= 0

    def noted(self, fact: Hashable, value: Value) -> Value:
        """Return the value that was passed in the round in which `fact` began to hold."""
        self._asked.add(fact)
        return self._noted.setdefault(fact, value)  # type: ignore[return-value]

    def wake_after(self, seconds: float) -> None:
        """Note that something else is due after so many seconds."""
        due = self._now + seconds
        self._due = due if self._due is None else min(self._due, due)

    @property
    def seconds_to_next(self) -> float | None:
        """Seconds until the first timer of this round ends; None if none is running."""
        return None if self._due is None else self._due - self._now
