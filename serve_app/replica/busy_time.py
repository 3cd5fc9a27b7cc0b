"""How long at least one of several overlapping intervals lasted. Pure."""

from collections import deque
from typing import Final

# An interval that begins before so many others have ended with gaps between them is told apart no more.
_REMEMBERED: Final = 64


class BusyTime:
    """Adds up intervals, each one after its end; time that several of them share counts once."""

    def __init__(self) -> None:
        # Disjoint, in order.
        self._intervals: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def add(self, began: float, seconds: float) -> float:
        """Return how many seconds of the interval were in none before."""
        ended = began + seconds
        gained = seconds
        while self._intervals and self._intervals[-1][1] > began:
            other_began, other_ended = self._intervals.pop()
            gained -= min(ended, other_ended) - max(began, other_began)
            began, ended = min(began, other_began), max(ended, other_ended)
        self._intervals.append((began, ended))
        return max(0.0, gained)
