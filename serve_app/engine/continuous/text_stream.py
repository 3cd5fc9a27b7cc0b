"""Turn generated tokens into text piece by piece, up to the first of the stop texts. Pure."""

from collections.abc import Callable, Sequence
from typing import Final

# How many tokens of the prompt a tokenizer sees before the first new one: it may join words with a blank.
_CONTEXT: Final = 6
# What tokenizers give for half a character.
_INCOMPLETE: Final = "\ufffd"


class TextStream:
    """The text of one continuation, which `decode` makes of token ids."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int], stops: Sequence[str]
    ) -> None:
        self._decode = decode
        self._stops = stops
        # Tokens whose text may still change, after those that a tokenizer needs to see before them.
        self._ids = self._context(prompt)
        self._begin = len(self._ids)
        # What may be the beginning of a stop text.
        self._held = ""
        self.stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """Return the text that is certain now; `stopped` says whether a stop text follows it."""
        if self.stopped:
            return ""
        self._ids.extend(tokens)
        before = self._decode(self._ids[: self._begin])
        whole = self._decode(self._ids)
        if whole.endswith(_INCOMPLETE) or len(whole) <= len(before):
            return ""
        # They begin with a whole character: of the second half alone, tokenizers would make something else.
        self._ids = self._ids[self._begin :]
        self._begin = len(self._ids)
        return self._released(whole[len(before) :])

    def end(self) -> str:
        """Return the text that was held back, when no token follows."""
        if self.stopped:
            return ""
        rest = self._decode(self._ids)[len(self._decode(self._ids[: self._begin])) :]
        text = self._released(rest)
        return text if self.stopped else text + self._held

    def _context(self, prompt: Sequence[int]) -> list[int]:
        """Return the last tokens of the prompt, from the beginning of a character on if there is one."""
        last = list(prompt[-_CONTEXT:])
        whole = (last[begin:] for begin in range(len(last)))
        return next((ids for ids in whole if _INCOMPLETE not in self._decode(ids)), last)

    def _released(self, text: str) -> str:
        text = self._held + text
        found = [(text.find(stop), stop) for stop in self._stops]
        # The one that is complete first counts, however many tokens come at once; of those, the longest.
        ends = [(begin + len(stop), begin) for begin, stop in found if begin >= 0]
        if ends:
            self.stopped, self._held = True, ""
            return text[: min(ends)[1]]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
