"""The text of single tokens, as they are in the middle of a text. Pure."""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Final

# So many tokens are remembered with their texts; answers with the most likely ones ask for many of them.
_REMEMBERED: Final = 32_768


class TokenTexts:
    """The text of each token behind another one, because decoders of SentencePiece drop a first blank.

    `decode` makes text of token ids, special ones included. `before` are the tokens of some word. If there
    are none, or they do not stay as they are, tokens have the text that they have alone, as `special` ones.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], before: Sequence[int], special: Collection[int]
    ) -> None:
        self._decode = decode
        self._special = frozenset(special)
        self._before = [] if self._special.intersection(before) else list(before)
        self._start = decode(self._before) if self._before else ""
        self.of: Callable[[int], str] = lru_cache(maxsize=_REMEMBERED)(self._of)

    def _of(self, token: int) -> str:
        if self._start and token not in self._special:
            whole = self._decode([*self._before, token])
            if whole.startswith(self._start):
                return whole[len(self._start) :]
        return self._decode([token])
