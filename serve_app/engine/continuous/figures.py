"""What is known of a model that generates: tokens in and out, and how long clients wait for them. Pure."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Final

# So many of the newest continuations are remembered for the medians.
_REMEMBERED: Final = 256


@dataclass(frozen=True)
class Finished:
    """A continuation that is over, or whose client has gone.

    Tokens of the prompt, those of them that were known, and those generated; seconds from its arrival to its
    first token, and from there to the last one. Without a token, there are no seconds.
    """

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    first_token_seconds: float | None
    other_tokens_seconds: float | None

    @property
    def seconds_per_token(self) -> float | None:
        """The time between two tokens, on the average; None with fewer than two."""
        if self.other_tokens_seconds is None or self.generated_tokens < 2:
            return None
        return self.other_tokens_seconds / (self.generated_tokens - 1)


class Figures:
    """Sums over all continuations, and the times of the newest ones; `observers` are told of each."""

    def __init__(self) -> None:
        self.observers: list[Callable[[Finished], None]] = []
        self._sums = {"requests": 0, "prompt_tokens": 0, "cached_tokens": 0, "generated_tokens": 0}
        self._first: deque[float] = deque(maxlen=_REMEMBERED)
        self._between: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, finished: Finished) -> None:
        """Count one more."""
        self._sums["requests"] += 1
        self._sums["prompt_tokens"] += finished.prompt_tokens
        self._sums["cached_tokens"] += finished.cached_tokens
        self._sums["generated_tokens"] += finished.generated_tokens
        if finished.first_token_seconds is not None:
            self._first.append(finished.first_token_seconds)
        if finished.seconds_per_token is not None:
            self._between.append(finished.seconds_per_token)
        for observe in self.observers:
            observe(finished)

    @property
    def description(self) -> dict[str, Any]:
        """The figures for the model's metadata; times in seconds."""
        return {
            **self._sums,
            "time_to_first_token": _percentiles(self._first),
            "time_per_output_token": _percentiles(self._between),
        }


def _percentiles(values: deque[float]) -> dict[str, float] | None:
    if len(values) < 2:
        return {"p50": round(values[0], 4), "p90": round(values[0], 4)} if values else None
    cuts = quantiles(values, n=10, method="inclusive")
    return {"p50": round(cuts[4], 4), "p90": round(cuts[8], 4)}
