"""Sequences that grow by a token at each step: what is asked of one, its state while it runs, its outcome."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve_app.engine.base import EncodedSequence
from serve_app.engine.continuous.choice import Choice, Row, Sampling
from serve_app.engine.continuous.figures import Finished
from serve_app.engine.continuous.text_stream import TextStream
from serve_app.engine.generation import FinishReason
from serve_app.engine.waiting import QueueEntry, WaitingRequest


@dataclass(frozen=True, kw_only=True)
class Continuation(EncodedSequence):
    """A prompt, and how it is continued: up to a token of `ends`, a text of `stops`, or `new_tokens` tokens.

    `decode` makes text of token ids. Sampling with the same `seed` repeats.
    """

    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None

    @property
    def prompt(self) -> list[int]:
        return self.features["input_ids"]


@dataclass(frozen=True)
class Continued:
    """The outcome: the new tokens, and their text if there was a stop text to look for."""

    tokens: Sequence[int]
    text: str | None
    reason: FinishReason


@dataclass(frozen=True)
class Growth:
    """What one step has added to a streamed continuation."""

    text: str
    choice: Choice
    reason: FinishReason | None
    known: int


class StreamedRequest(WaitingRequest):
    """A request of one continuation, which hands on what each step adds; an error comes last.

    None is for whoever still waits when it is closed.
    """

    def __init__(self, continuation: Continuation, answer: asyncio.Future[list[Any]]) -> None:
        super().__init__([continuation], answer)
        self.growth: asyncio.Queue[Growth | Exception | None] = asyncio.Queue()

    def fail(self, error: Exception) -> None:
        if not self.is_over:
            self.growth.put_nowait(error)
        super().fail(error)


class RunningSequence:
    """A continuation that has its share of the budget, and a place once its prompt is begun."""

    def __init__(self, entry: QueueEntry) -> None:
        assert isinstance(entry.sequence, Continuation)
        self.entry = entry
        self.continuation = entry.sequence
        self.ids = list(self.continuation.prompt)
        self.place: int | None = None
        # Of the ids: how many the cache holds, and how many it held when the sequence began.
        self.computed = 0
        self.known = 0
        self.reason: FinishReason | None = None
        self._first_token: float | None = None
        self._last_token: float | None = None
        self._random = _random_of(self.continuation.seed)
        self._draw: float | None = None
        self._request = entry.request
        self._makes_text = isinstance(self._request, StreamedRequest) or bool(self.continuation.stops)
        self._text: TextStream | None = None
        self._texts: list[str] = []

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._request.is_over

    @property
    def missing(self) -> int:
        """How many of its tokens must be computed before the next one is chosen."""
        return len(self.ids) - self.computed

    def row(self, count: int) -> Row:
        """Return the next `count` tokens as part of a step."""
        assert self.place is not None
        sampling = self.continuation.sampling
        if self._draw is None and sampling.samples:
            self._draw = self._random.random()
        end = self.computed + count
        return Row(
            self.place,
            self.computed,
            self.ids[self.computed : end],
            end == len(self.ids),
            sampling,
            self._draw or 0.0,
            self.ids,
            len(self.continuation.prompt),
        )

    def advance(self, count: int, choice: Choice | None) -> None:
        """Take over what a step has computed and chosen."""
        self.computed += count
        if choice is None:
            return
        self._draw = None
        self.ids.append(choice.token)
        self._last_token = time.monotonic()
        self._first_token = self._first_token or self._last_token
        if choice.token in self.continuation.ends:
            self.reason = FinishReason.END_TOKEN
        elif len(self.ids) - self.continuation.length >= self.continuation.new_tokens:
            self.reason = FinishReason.LENGTH

    @property
    def figures(self) -> Finished:
        """What is to be counted when it is over."""
        first = other = None
        if self._first_token is not None and self._last_token is not None:
            first = self._first_token - self._request.arrived
            other = self._last_token - self._first_token
        return Finished(len(self.continuation.prompt), self.known, len(self.new_tokens), first, other)

    @property
    def new_tokens(self) -> list[int]:
        return self.ids[len(self.continuation.prompt) :]

    def publish(self, choice: Choice) -> None:
        """Make text of the newest token, and hand it on; a stop text or the last token ends the sequence."""
        text = ""
        if self._makes_text:
            self._text = self._text or TextStream(
                self.continuation.decode, self.continuation.prompt, self.continuation.stops
            )
            # What ends a text is no part of it, also where the tokenizer does not call it special.
            text = "" if choice.token in self.continuation.ends else self._text.add([choice.token])
            if self.reason is not None:
                text += self._text.end()
            if self._text.stopped:
                self.reason = FinishReason.STOP
            self._texts.append(text)
        if isinstance(self._request, StreamedRequest):
            self._request.growth.put_nowait(Growth(text, choice, self.reason, self.known))
        if self.reason is not None:
            whole = "".join(self._texts) if self.continuation.stops else None
            self._request.set_output(self.entry.number, Continued(self.new_tokens, whole, self.reason))


def _random_of(seed: int | None) -> random.Random:
    """Return random numbers that repeat with the seed; of an integer itself, Python leaves out the sign."""
    return random.Random(None if seed is None else str(seed))
