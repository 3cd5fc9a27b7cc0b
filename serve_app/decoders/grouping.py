"""Which rows of a step attend together, and which alone. Pure; the figures are of processors.

Rows that attend together are one operation over all places between the first and the last of them, up to the
length of the longest: cheap for each row, but short ones pay for what the longest one needs.
"""

from collections.abc import Sequence
from typing import Final

# Microseconds of an operation of one row, and of each of its tokens; measured with 3 heads of 64 numbers.
_ALONE: Final = (25.0, 0.125)
_TOGETHER: Final = (5.0, 0.1)


def rows_alone(places: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """Return the numbers of the rows that attend alone, so that all of them together take the least time.

    `places` and `lengths` are those of the rows, the lengths in tokens.
    """
    longest_first = sorted(range(len(places)), key=lambda row: -lengths[row])
    best, seconds = 0, float("inf")
    alone = 0.0
    for count in range(len(longest_first) + 1):
        together = longest_first[count:]
        cost = alone
        if together:
            own = [places[row] for row in together]
            cost += (max(own) - min(own) + 1) * _cost(_TOGETHER, lengths[together[0]])
            alone += _cost(_ALONE, lengths[together[0]])
        if cost < seconds:
            best, seconds = count, cost
    return sorted(longest_first[:best])


def _cost(of: tuple[float, float], tokens: int) -> float:
    return of[0] + of[1] * tokens
