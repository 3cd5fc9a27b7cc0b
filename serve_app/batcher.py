"""Drain-when-free batching: the moment the model is free it takes all that is queued.

At low load nothing waits; under load batches are full. Knows sequences by length and group only,
nothing of tasks or HTTP.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol


class Sequenced(Protocol):
    """What the batcher must know of a sequence."""

    @property
    def length(self) -> int:
        """Number of tokens."""
        ...

    @property
    def group(self) -> Hashable:
        """Sequences of different groups never share a batch."""
        ...


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of one batch: sequences, tokens with padding, and how long an idle model may wait.

    `overhead_tokens` is what a batch costs besides its tokens, in tokens: padding up to there is
    cheaper than one more batch. A model that is not `padded` costs what its tokens cost.
    """

    max_size: int
    max_tokens: int
    max_wait_seconds: float
    overhead_tokens: int = 32
    padded: bool = True


@dataclass(eq=False)
class Waiting:
    """A sequence and the future of its output."""

    sequence: Sequenced
    output: asyncio.Future[Any]


class Progress:
    """How a long forward pass reports that it lives and learns that nobody waits for it."""

    def __init__(self, outputs: Sequence[asyncio.Future[Any]]) -> None:
        self._outputs = outputs
        self.last = time.monotonic()

    def tick(self) -> bool:
        """Note a step forward; return whether anybody still waits for the result."""
        self.last = time.monotonic()
        return not all(output.done() for output in self._outputs)


Forward = Callable[[list[Any], Progress], Sequence[Any]]


def cut(waiting: Sequence[Waiting], limits: BatchLimits) -> list[list[Waiting]]:
    """Cut into batches of one group each at the least cost within the limits.

    With padding, a batch costs its longest sequence times its size, and the overhead, and sequences are
    sorted by length; without, full batches in the order of arrival cost the least. A sequence above the
    token limit gets a batch of its own.
    """
    groups: dict[Hashable, list[Waiting]] = {}
    for entry in waiting:
        groups.setdefault(entry.sequence.group, []).append(entry)
    batches: list[list[Waiting]] = []
    for group in groups.values():
        if limits.padded:
            group.sort(key=lambda entry: entry.sequence.length)
        find_edges = _cheapest_edges if limits.padded else _full_edges
        edges = find_edges([entry.sequence.length for entry in group], limits)
        batches += [group[start:end] for start, end in pairwise(edges)]
    return batches


def _cheapest_edges(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """Return where the batches of sorted `lengths` begin and end."""
    # For each number of sequences: the least cost of running them, and where their last batch starts.
    costs, starts = [0], [0]
    for end, longest in enumerate(lengths, start=1):
        fitting = max(1, min(limits.max_size, limits.max_tokens // max(longest, 1), end))
        cost, size = min(
            (costs[end - size] + limits.overhead_tokens + longest * size, size)
            for size in range(1, fitting + 1)
        )
        costs.append(cost)
        starts.append(end - size)
    edges = [len(lengths)]
    while edges[-1]:
        edges.append(starts[edges[-1]])
    return edges[::-1]


def _full_edges(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """Return where batches begin and end that are as large as they may be."""
    edges, tokens = [0], 0
    for at, length in enumerate(lengths):
        size = at - edges[-1]
        if size and (size == limits.max_size or tokens + length > limits.max_tokens):
            edges.append(at)
            tokens = 0
        tokens += length
    return [*edges, len(lengths)]


@dataclass
class Batcher:
    """Runs `forward` on batches in one thread: torch's own threads do the work in parallel.

    `limits` may be replaced at any time; the next batch obeys the new ones.
    """

    forward: Forward
    limits: BatchLimits
    _queue: list[Waiting] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _full: asyncio.Event = field(default_factory=asyncio.Event)
    _progress: Progress | None = None
    _worker: asyncio.Task[None] | None = None
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="forward")
    )

    async def submit(self, sequences: Sequence[Sequenced]) -> list[Any]:
        """Return the outputs of `sequences`, in their order; cancelling frees their places."""
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        loop = asyncio.get_running_loop()
        entries = [Waiting(sequence, loop.create_future()) for sequence in sequences]
        self._queue.extend(entries)
        self._arrived.set()
        if len(self._queue) >= self.limits.max_size:
            self._full.set()
        try:
            return await asyncio.gather(*(entry.output for entry in entries))
        finally:
            for entry in entries:
                if not entry.output.cancel() and not entry.output.cancelled():
                    # Only the first failure is raised; asyncio would complain about the others.
                    entry.output.exception()

    def seconds_without_progress(self) -> float:
        """Return how long the running batch has not moved; 0 when nothing runs."""
        return time.monotonic() - self._progress.last if self._progress else 0.0

    @property
    def busy(self) -> bool:
        """Whether a batch is running."""
        return self._progress is not None

    async def close(self) -> None:
        """Stop taking batches; a running one is not waited for."""
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        for entry in self._queue:
            entry.output.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            await self._fill()
            drained, self._queue = self._queue, []
            self._arrived.clear()
            self._full.clear()
            for batch in cut(_wanted(drained), self.limits):
                await self._run(batch)

    async def _fill(self) -> None:
        """Wait for a full batch, but no longer than the limits say."""
        if self.limits.max_wait_seconds == 0:
            # Requests that are on the loop already get their turn, and no more.
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.max_wait_seconds):
                await self._full.wait()

    async def _run(self, batch: Sequence[Waiting]) -> None:
        wanted = _wanted(batch)
        if not wanted:
            return
        self._progress = Progress([entry.output for entry in wanted])
        loop = asyncio.get_running_loop()
        sequences = [entry.sequence for entry in wanted]
        try:
            outputs = await loop.run_in_executor(self._thread, self.forward, sequences, self._progress)
            results = list(zip(wanted, outputs, strict=True))
        except Exception as error:
            await self._run_apart(wanted, error)
        else:
            for entry, output in results:
                if not entry.output.done():
                    entry.output.set_result(output)
        finally:
            self._progress = None

    async def _run_apart(self, batch: Sequence[Waiting], error: Exception) -> None:
        """Run each sequence alone, so that the one that fails fails alone."""
        if len(batch) > 1:
            for entry in batch:
                await self._run([entry])
        elif not batch[0].output.done():
            batch[0].output.set_exception(error)


def _wanted(entries: Sequence[Waiting]) -> list[Waiting]:
    """Leave out those whose client has gone or timed out."""
    return [entry for entry in entries if not entry.output.done()]
