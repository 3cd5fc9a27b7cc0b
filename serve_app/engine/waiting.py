"""Requests that wait for the model, and whose turn it is. Pure but for the futures of the answers.

Requests are served in turn, one sequence of each, so that a request of many sequences delays a small one by a
batch or two and not until it is over. Before requests, the keys that send them take turns, so that one that
sends many requests does not delay another key's.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from serve_app.engine.batch_planner import BatchItem
from serve_app.engine.records import current_record


class WaitingRequest:
    """The sequences of one request, and the future of their outputs, in the same order."""

    def __init__(self, sequences: Sequence[BatchItem], answer: asyncio.Future[list[Any]]) -> None:
        self.sequences = sequences
        self.answer = answer
        # Requests of the same owner take their turns as one; a client may ask for several texts at once.
        self.owner: object = self
        self.arrived = time.monotonic()
        self.record = current_record()
        # The name of the client's key.
        self.caller = self.record.caller if self.record is not None else ""
        if self.record is not None and self.record.queued is None:
            self.record.queued = self.arrived
        # Whether the figures of the model have it; health checks are nobody's requests.
        self.counted = True
        self.tokens = sum(sequence.tokens for sequence in sequences)
        # The sequences that are in no batch yet, by their numbers.
        self.remaining = deque(range(len(sequences)))
        self._outputs: list[Any] = [None] * len(sequences)
        self._missing = len(sequences)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more: it is answered or has failed, or its client has gone."""
        return self.answer.done()

    @property
    def waiting(self) -> list[BatchItem]:
        """The sequences that are in no batch yet."""
        return [self.sequences[number] for number in self.remaining]

    def set_output(self, number: int, output: Any) -> None:
        """Store an output; the last one answers the request."""
        self._outputs[number] = output
        self._missing -= 1
        if not self._missing and not self.is_over:
            self.answer.set_result(self._outputs)

    def fail(self, error: Exception) -> None:
        """End the request with its first failure."""
        if not self.is_over:
            self.answer.set_exception(error)


@dataclass(frozen=True, eq=False)
class QueueEntry:
    """One sequence of a request."""

    request: WaitingRequest
    number: int

    @property
    def sequence(self) -> BatchItem:
        return self.request.sequences[self.number]


# The requests of one key in the order of their turns: each with its next sequences, and the tokens of those
# that have had a turn.
_Turns = deque[tuple[WaitingRequest, Iterator[int], int]]


class WaitingRequests:
    """All requests with sequences that are in no batch yet, in the order of their turns."""

    def __init__(self) -> None:
        self._turns: list[WaitingRequest] = []
        # When the keys that have been served had their last turn, counted in turns.
        self._served: dict[str, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        """Return the number of sequences that wait."""
        return sum(len(request.remaining) for request in self._turns if not request.is_over)

    @property
    def requests(self) -> Sequence[WaitingRequest]:
        """Those that wait with any of their sequences."""
        return tuple(self._turns)

    def forget_those_that_are_over(self) -> None:
        """Let go of requests that nobody waits for."""
        self._turns = [request for request in self._turns if request.remaining and not request.is_over]

    def append(self, request: WaitingRequest) -> None:
        """Let a request wait; its turn comes after that of all others."""
        self._turns.append(request)

    def next(self, most: int, most_tokens: int, up_to: float = math.inf) -> list[QueueEntry]:
        """Return up to `most` sequences that are next: one of each key in turn, and of its requests in turn.

        A request has no further turn once its own have more than `most_tokens`. Requests of more than `up_to`
        tokens are left out. The sequences go on waiting until they are taken.
        """
        self.forget_those_that_are_over()
        callers = self._turns_of_callers(most, up_to)
        if len(callers) > 1:
            # As many of each as of the one with the fewest: a key that asks little waits for no large batch.
            fewest = min(sum(len(request.remaining) for request, _, _ in turns) for turns in callers)
            most = min(most, fewest * len(callers))
        entries: list[QueueEntry] = []
        while callers and len(entries) < most:
            turns = callers.popleft()
            request, numbers, tokens = turns.popleft()
            number = next(numbers, None)
            if number is not None and tokens < most_tokens:
                entries.append(QueueEntry(request, number))
                turns.append((request, numbers, tokens + entries[-1].sequence.tokens))
                callers.append(turns)
            elif turns:
                # The turn is that of the key's next request.
                callers.appendleft(turns)
        return entries

    def _turns_of_callers(self, most: int, up_to: float) -> deque[_Turns]:
        """Return the turns of each key's requests, first those of the key that has waited longest for one."""
        of_caller: dict[str, _Turns] = {}
        for request in self._turns:
            if request.tokens <= up_to:
                turns = of_caller.setdefault(request.caller, deque())
                turns.append((request, islice(request.remaining, most), 0))
        return deque(
            of_caller[caller] for caller in sorted(of_caller, key=lambda name: self._served.get(name, 0))
        )

    def take(self, entries: Collection[QueueEntry]) -> None:
        """Take sequences out; it is the turn of the other requests then."""
        self._turn += 1
        self._served |= dict.fromkeys((entry.request.caller for entry in entries), self._turn)
        taken: dict[WaitingRequest, set[int]] = {}
        for entry in entries:
            taken.setdefault(entry.request, set()).add(entry.number)
        for request, numbers in taken.items():
            # They are among the first ones, and there may be thousands.
            skipped = []
            while numbers:
                number = request.remaining.popleft()
                if number in numbers:
                    numbers.remove(number)
                else:
                    skipped.append(number)
            request.remaining.extendleft(reversed(skipped))
        owners = {request.owner for request in taken}
        others = [request for request in self._turns if request.owner not in owners]
        own = [request for request in self._turns if request.owner in owners and request not in taken]
        self._turns = [*others, *own, *(request for request in taken if request.remaining)]

    def drop_all(self) -> None:
        """Cancel all requests that wait."""
        for request in self._turns:
            request.answer.cancel()
        self._turns = []
