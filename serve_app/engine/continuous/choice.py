"""How the next token of a sequence is chosen, and what is known of a chosen one. Pure data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Sampling:
    """Options of `GenerationConfig` that choose a token, and OpenAI's penalties; greedy without `samples`.

    `processors` are transformers' own, for what a model's folder states besides. With `top_logprobs` None, no
    log-probabilities are computed.
    """

    samples: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int | None = None
    processors: Any = None

    @property
    def needs_tokens(self) -> bool:
        """Whether the choice depends on the tokens before, besides through the model."""
        return bool(self.processors) or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True)
class Choice:
    """A chosen token, its log-probability, and the most likely tokens with theirs."""

    token: int
    logprob: float = 0.0
    top: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True)
class Row:
    """What a step computes of the sequence in `place`: `tokens`, the first of them at position `begin`.

    With `chooses`, a token that follows them is chosen: `draw`, from 0 to 1, decides where one is sampled.
    Of all its tokens, `so_far`, the first `prompt` were not generated.
    """

    place: int
    begin: int
    tokens: Sequence[int]
    chooses: bool
    sampling: Sampling = field(default_factory=Sampling)
    draw: float = 0.0
    so_far: Sequence[int] = ()
    prompt: int = 0


class Steps(Protocol):
    """A model that computes sequences step by step, each in a place of its memory."""

    # The most places, and how many tokens one has.
    places: int
    capacity: int

    def step(self, rows: Sequence[Row]) -> list[Choice | None]:
        """Compute the rows, and return the chosen token of each that chooses one.

        Raises what the model raises; the same rows may be computed again then.
        """
        ...

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let the sequence in place `target` begin with the first tokens of that in `source`."""
        ...

    def release(self, place: int, known: int = 0) -> None:
        """Give the memory of a place back, but that of its first `known` tokens."""
        ...
