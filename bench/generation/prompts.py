"""Prompts of known length, the bodies that ask for them, and when streams begin; pure."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.texts import WORDS
from endpoint_operator.load.timing import poisson_times

# In words of the vocabulary, each of which is about one token.
SHORT: Final = (20, 40)
LONG: Final = (20, 800)
COMPLETIONS: Final = "/v1/completions"
CHAT: Final = "/v1/chat/completions"


def make_prompts(lengths: tuple[int, int], count: int, seed: int = 13) -> list[str]:
    """Return `count` prompts, no two alike, with lengths whose logarithms are spread evenly.

    Of those with 20 to 800 words, half have fewer than 126. No server can use what it kept of another prompt.
    """
    source = random.Random(f"{lengths} {seed}")
    fewest, most = (math.log(length) for length in lengths)
    drawn = (round(math.exp(source.uniform(fewest, most))) for _ in range(count))
    return [" ".join(source.choices(WORDS, k=words)) for words in drawn]


def members(
    route: str, model: str, prompt: str, tokens: int, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the request for a stream of so many tokens; `more` adds members, and None takes them out."""
    asked = {"messages": [{"role": "user", "content": prompt}]} if route == CHAT else {"prompt": prompt}
    found: dict[str, Any] = {
        "model": model,
        **asked,
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "ignore_eos": True,
        **(more or {}),
    }
    return {name: value for name, value in found.items() if value is not None}


def first_starts(streams: int, within: float, seed: int) -> list[float]:
    """Return when each of the clients begins, at random, so that they are not all at the same token."""
    source = random.Random(seed)
    return [source.uniform(0, within) for _ in range(streams)]


def arrivals(rate: float, warm: float, seconds: float, seed: int) -> Sequence[float]:
    """Return when requests come at random, in just the number that is to be expected."""
    return [*poisson_times(rate, 0, warm, seed), *poisson_times(rate, warm, warm + seconds, seed + 1)]
