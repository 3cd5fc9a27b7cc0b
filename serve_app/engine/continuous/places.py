"""Which place of the cache a sequence gets, and what is known there already. Pure.

A place keeps its tokens when its sequence is over. A sequence that begins with the same tokens goes on from
there, or gets a copy of them, so that what prompts have in common is computed once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Copying fewer tokens than this gains nothing.
WORTH_COPYING: Final = 16


@dataclass(frozen=True)
class Start:
    """The place of a sequence, of whose tokens the first `known` are there, once copied from `source`.

    The place has kept `stale` tokens of another sequence besides.
    """

    place: int
    known: int = 0
    source: int | None = None
    stale: int = 0


class Places:
    """The places that no sequence is in, with the tokens that are still there, oldest first."""

    def __init__(self) -> None:
        self._kept: dict[int, Sequence[int]] = {}

    @property
    def kept_tokens(self) -> int:
        return sum(map(len, self._kept.values()))

    def start(self, prompt: Sequence[int], running: Mapping[int, Sequence[int]], count: int) -> Start:
        """Take one of the first `count` places for a prompt; `running` has what the others have computed.

        There must be a free one. At least the last token of the prompt is not known, because its logits are
        needed.
        """
        free = [place for place in range(count) if place not in running and place not in self._kept]
        # The oldest one that is kept is given up if no place is empty.
        target = free[0] if free else next(place for place in self._kept if place < count)
        best, known = target, 0
        for place, tokens in (*self._kept.items(), *running.items()):
            common = common_prefix(tokens, prompt[:-1])
            if common > known:
                best, known = place, common
        tokens = self._kept.get(best, ())
        if best < count and (best == target or (tokens and known * 2 >= len(tokens))):
            self._kept.pop(best, None)
            return Start(best, known, stale=len(tokens) - known)
        stale = len(self._kept.pop(target, ()))
        return Start(target, known, best, stale) if known >= WORTH_COPYING else Start(target, stale=stale)

    def keep(self, place: int, tokens: Sequence[int]) -> bool:
        """Let a place keep the tokens of a sequence that is over; return whether they are worth it."""
        if len(tokens) < WORTH_COPYING:
            return False
        self._kept[place] = tokens
        return True

    def drop(self, most_tokens: int) -> Iterable[int]:
        """Give up places, oldest first, until they keep `most_tokens` at most; yield each."""
        while self._kept and self.kept_tokens > most_tokens:
            place = next(iter(self._kept))
            del self._kept[place]
            yield place


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    low, high = 0, min(len(one), len(other))
    # Slices are compared much faster than single tokens.
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
