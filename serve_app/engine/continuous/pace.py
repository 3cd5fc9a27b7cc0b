"""How much of the prompts one step computes beside sequences that are generated. Pure."""

from typing import Final

# The most tokens of prompts in a step while nobody waits for a next token, and the least beside others.
MOST_TOKENS: Final = 512
_LEAST_TOKENS: Final = 16
# By how many times a step of single tokens a piece of a prompt may delay the others.
_DELAY: Final = 1.5
# The part of a new measurement in what is remembered.
_NEW: Final = 0.2


class Pace:
    """Remembers how long steps take: of single tokens, and for each token of a prompt in addition."""

    def __init__(self) -> None:
        self._single = 0.02
        self._per_token = 0.001

    def piece_tokens(self, generating: int) -> int:
        """Return how many tokens of prompts the next step may have, beside `generating` sequences."""
        if not generating:
            return MOST_TOKENS
        return max(_LEAST_TOKENS, min(MOST_TOKENS, int(_DELAY * self._single / self._per_token)))

    def note(self, seconds: float, generating: int, piece_tokens: int) -> None:
        """Learn from a step; one that computes nothing takes no time, and says nothing."""
        if not piece_tokens and not generating:
            return
        if not piece_tokens:
            self._single += _NEW * (seconds - self._single)
            return
        rest = seconds - (self._single if generating else 0.0)
        self._per_token += _NEW * (max(rest, 0.0) / piece_tokens - self._per_token)
        self._per_token = max(self._per_token, 1e-6)
