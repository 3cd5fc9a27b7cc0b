"""Drain-when-free batching: the moment the model is free it takes all that is queued.

At low load nothing waits; under load batches are full. Knows sequences by length and group only,
nothing of tasks or HTTP.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

from serve_app.lanes import Lanes


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


class Batcher:
    """Runs `forward` on batches in the threads of `lanes`.

    `limits` may be replaced at any time; the next batch obeys the new ones.
    """

    def __init__(self, forward: Forward, limits: BatchLimits, lanes: Lanes | None = None) -> None:
        self.forward = forward
        self.limits = limits
        self._lanes = lanes or Lanes()
        self._free = asyncio.Semaphore(self._lanes.count)
        self._queue: list[Waiting] = []
        # Batches of a queue that was sorted; a queue that need not be is cut anew for each batch.
        self._cut: deque[list[Waiting]] = deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._running: set[Progress] = set()
        self._passes: set[asyncio.Task[None]] = set()
        # Whether something else ran or waited when the last batch was over.
        self._crowded = False
        self._worker: asyncio.Task[None] | None = None

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
        """Return how long a running batch has not moved; 0 when nothing runs."""
        return max((time.monotonic() - progress.last for progress in self._running), default=0.0)

    @property
    def busy(self) -> bool:
        """Whether a batch is running."""
        return bool(self._running)

    async def close(self) -> None:
        """Stop taking batches; a running one is not waited for."""
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
        for entry in itertools.chain(self._queue, *self._cut):
            entry.output.cancel()
        self._lanes.close()

    async def _work(self) -> None:
        while True:
            await self._free.acquire()
            if not self._cut:
                await self._arrived.wait()
                await self._fill()
            batch = self._take()
            # A lone batch takes all lanes, whose cores would be idle otherwise.
            alone = not (self._passes or self._queue or self._cut or self._crowded)
            width = self._lanes.count if alone else 1
            for _ in range(width - 1):
                await self._free.acquire()
            task = asyncio.create_task(self._pass(batch, self._lanes.executor(alone=alone), width))
            self._passes.add(task)
            task.add_done_callback(self._passes.discard)

    async def _fill(self) -> None:
        """Let an idle model wait for a full batch, but no longer than the limits say."""
        if self.limits.max_wait_seconds == 0 or self.busy:
            # Requests that are on the loop already get their turn, and no more.
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.max_wait_seconds):
                await self._full.wait()

    def _take(self) -> list[Waiting]:
        """Return the next batch, empty if nobody waits any more."""
        if self._cut:
            return self._cut.popleft()
        waiting = _wanted(self._queue)
        idle = self._lanes.count - len(self._passes)
        share = min(self.limits.max_size, -(-len(waiting) // idle)) or 1
        batch, *others = cut(waiting, replace(self.limits, max_size=share)) or [[]]
        if self.limits.padded:
            self._cut.extend(others)
            self._queue = []
        else:
            taken = set(map(id, batch))
            self._queue = [entry for entry in waiting if id(entry) not in taken]
        if not self._queue:
            self._arrived.clear()
            self._full.clear()
        return batch

    async def _pass(self, batch: Sequence[Waiting], executor: Executor, width: int) -> None:
        """Run a batch that has taken as many lanes."""
        try:
            await self._run(batch, executor)
        finally:
            self._crowded = self.busy or bool(self._queue or self._cut)
            for _ in range(width):
                self._free.release()

    async def _run(self, batch: Sequence[Waiting], executor: Executor) -> None:
        wanted = _wanted(batch)
        if not wanted:
            return
        progress = Progress([entry.output for entry in wanted])
        self._running.add(progress)
        loop = asyncio.get_running_loop()
        sequences = [entry.sequence for entry in wanted]
        try:
            outputs = await loop.run_in_executor(executor, self.forward, sequences, progress)
            results = list(zip(wanted, outputs, strict=True))
        except Exception as error:
            await self._run_apart(wanted, error, executor)
        else:
            for entry, output in results:
                if not entry.output.done():
                    entry.output.set_result(output)
        finally:
            self._running.discard(progress)

    async def _run_apart(self, batch: Sequence[Waiting], error: Exception, executor: Executor) -> None:
        """Run each sequence alone, so that the one that fails fails alone."""
        if len(batch) > 1:
            for entry in batch:
                await self._run([entry], executor)
        elif not batch[0].output.done():
            batch[0].output.set_exception(error)


def _wanted(entries: Sequence[Waiting]) -> list[Waiting]:
    """Leave out those whose client has gone or timed out."""
    return [entry for entry in entries if not entry.output.done()]
