"""Drain-when-free batching: when the model is free it takes all that is queued.

At low load nothing waits. Under load it lets those whom it has just answered ask again first, for a small
part of the time that a batch takes. Knows nothing of tasks or HTTP.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from serve_app.engine.base import Progress
from serve_app.engine.batch_planner import BatchLimits, Sequenced, Waiting, cut
from serve_app.engine.streams import Lanes

# How long after a batch its clients may ask again before the next starts without them: a part of the time
# that the batch took, and no longer than this. Else small batches follow each other where clients wait for
# their answers (docs/performance.md).
_AGAIN_PART: Final = 0.2
_AGAIN_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Ended:
    """A batch that is over: how many sequences it had, how long it took, and when it ended."""

    size: int
    seconds: float
    at: float


Forward = Callable[[list[Any], Progress], Sequence[Any]]


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
        # Set when so many are queued, and when a batch is over, as it may then be another number.
        self._full = asyncio.Event()
        self._enough = 0
        self._running: set[Progress] = set()
        self._passes: set[asyncio.Task[None]] = set()
        # Whether something else ran or waited when the last batch was over.
        self._crowded = False
        self._last = Ended(0, 0, 0)
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, sequences: Sequence[Sequenced]) -> list[Any]:
        """Return the outputs of `sequences`, in their order; cancelling frees their places."""
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        loop = asyncio.get_running_loop()
        entries = [Waiting(sequence, loop.create_future()) for sequence in sequences]
        self._queue.extend(entries)
        self._arrived.set()
        if len(self._queue) >= self._enough:
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
        """Wait until the queue makes a batch that is large enough, or no longer pays."""
        # Requests that are on the loop already get their turn.
        await asyncio.sleep(0)
        begun = time.monotonic()
        while True:
            self._enough, until = self._worth_waiting_for(begun)
            seconds = until - time.monotonic()
            if len(self._queue) >= self._enough or seconds <= 0:
                return
            self._full.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._full.wait()

    def _worth_waiting_for(self, begun: float) -> tuple[int, float]:
        """Return how many sequences the next batch should have, and until when to wait for them."""
        again = self._last.at + min(self._last.seconds * _AGAIN_PART, _AGAIN_SECONDS)
        # Batches beside each other do best if they are equal; more than half of the limit gains little.
        beside = [progress.size for progress in self._running]
        if beside or (self._lanes.count == 1 and not self.limits.max_wait_seconds):
            equal = max(beside, default=self._last.size)
            return min(equal, self.limits.max_size // 2), again
        return self.limits.max_size, begun + self.limits.max_wait_seconds

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
        return batch

    async def _pass(self, batch: Sequence[Waiting], executor: Executor, width: int) -> None:
        """Run a batch that has taken as many lanes."""
        begun = time.monotonic()
        try:
            await self._run(batch, executor)
        finally:
            now = time.monotonic()
            self._last = Ended(len(batch), now - begun, now)
            self._full.set()
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
