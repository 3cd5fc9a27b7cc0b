"""Tell how long something has held without a break; pure, the time is handed in."""

from collections.abc import Hashable


class Stopwatch:
    """Measures facts between rounds: what is not asked for in a round starts anew."""

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}
        self._asked: set[Hashable] = set()
        self._now = 0.0
        self._due: float | None = None

    def begin(self, now: float) -> None:
        """Start a round; facts that the last round did not ask for are forgotten."""
        self._since = {fact: since for fact, since in self._since.items() if fact in self._asked}
        self._asked.clear()
        self._now = now
        self._due = None

    def held(self, fact: Hashable, seconds: float) -> bool:
        """Return whether `fact`, which holds now, has held for that long in every round since."""
        self._asked.add(fact)
        due = self._since.setdefault(fact, self._now) + seconds
        if due > self._now:
            self._due = due if self._due is None else min(self._due, due)
        return due <= self._now

    @property
    def seconds_to_next(self) -> float | None:
        """Seconds until the first of this round's answers changes by itself; None if none does."""
        return None if self._due is None else self._due - self._now
