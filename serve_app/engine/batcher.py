"""Dynamic batching: whenever the model is free, take everything that is queued.

At low load no request waits for a batch. Under load the next batch is delayed by 20 % of the last one's run
time, at most 20 ms. Clients whose responses have just gone out can then join it.

    submit ──> queue ──a stream is free──> _wait_for_batch, _next_batch ──> _pass: `forward` ──> outputs
                                                                              │ raises
                                                                              └──> _retry_individually
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
from serve_app.engine.batch_planner import BatchItem, BatchLimits, QueueEntry, plan_batches
from serve_app.engine.streams import Streams

# How long the next batch lingers for clients whose responses have just gone out: a fraction of the last
# batch's run time, up to a maximum. Without it, clients that wait for their responses get small batches.
_LINGER_FRACTION: Final = 0.2
_MAX_LINGER_SECONDS: Final = 0.02


@dataclass(frozen=True)
class CompletedBatch:
    """A batch that has run: its number of sequences, its run time, and when it ended."""

    size: int
    seconds: float
    at: float


Forward = Callable[[list[Any], Progress], Sequence[Any]]


class Batcher:
    """Runs `forward` on batches, in the threads of `streams`.

    `limits` may be replaced at any time; the next batch obeys the new ones.
    """

    def __init__(self, forward: Forward, limits: BatchLimits, streams: Streams | None = None) -> None:
        self.forward = forward
        self.limits = limits
        self._streams = streams or Streams()
        self._free_streams = asyncio.Semaphore(self._streams.count)
        self._queue: list[QueueEntry] = []
        # With padding, the whole queue is sorted and split at once; without, it is split anew for each batch.
        self._planned: deque[list[QueueEntry]] = deque()
        self._arrived = asyncio.Event()
        # Set when `_target_size` sequences are queued, and after each batch, when the target may change.
        self._target_reached = asyncio.Event()
        self._target_size = 0
        self._running: set[Progress] = set()
        self._passes: set[asyncio.Task[None]] = set()
        # Whether something else was running or queued when the last batch ended.
        self._contended = False
        self._last_batch = CompletedBatch(0, 0, 0)
        self._loop_task: asyncio.Task[None] | None = None

    async def submit(self, sequences: Sequence[BatchItem]) -> list[Any]:
        """Return the outputs of `sequences`, in their order; cancelling takes them out of the queue."""
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._batching_loop())
        loop = asyncio.get_running_loop()
        entries = [QueueEntry(sequence, loop.create_future()) for sequence in sequences]
        self._queue.extend(entries)
        self._arrived.set()
        if len(self._queue) >= self._target_size:
            self._target_reached.set()
        try:
            return await asyncio.gather(*(entry.output for entry in entries))
        finally:
            for entry in entries:
                if not entry.output.cancel() and not entry.output.cancelled():
                    # Only the first failure is raised; asyncio logs the others unless they are retrieved.
                    entry.output.exception()

    def seconds_without_progress(self) -> float:
        """Return how long a running batch has made no progress; 0 if none is running."""
        return max((time.monotonic() - progress.last for progress in self._running), default=0.0)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    async def close(self) -> None:
        """Run no further batch; do not wait for a running one."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop_task
        for entry in itertools.chain(self._queue, *self._planned):
            entry.output.cancel()
        self._streams.close()

    async def _batching_loop(self) -> None:
        while True:
            await self._free_streams.acquire()
            if not self._planned:
                await self._arrived.wait()
                await self._wait_for_batch()
            batch = self._next_batch()
            # A batch that is alone takes all streams; their cores would be idle otherwise.
            exclusive = not (self._passes or self._queue or self._planned or self._contended)
            streams_held = self._streams.count if exclusive else 1
            for _ in range(streams_held - 1):
                await self._free_streams.acquire()
            task = asyncio.create_task(
                self._pass(batch, self._streams.executor(exclusive=exclusive), streams_held)
            )
            self._passes.add(task)
            task.add_done_callback(self._passes.discard)

    async def _wait_for_batch(self) -> None:
        """Wait until the queue has reached its target size, or the time for that is over."""
        # First let requests in that are on the event loop already.
        await asyncio.sleep(0)
        begun = time.monotonic()
        while True:
            self._target_size, until = self._batch_target(begun)
            seconds = until - time.monotonic()
            if len(self._queue) >= self._target_size or seconds <= 0:
                return
            self._target_reached.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._target_reached.wait()

    def _batch_target(self, begun: float) -> tuple[int, float]:
        """Return how many sequences the next batch should have, and until when it may wait for them."""
        last = self._last_batch
        linger_until = last.at + min(last.seconds * _LINGER_FRACTION, _MAX_LINGER_SECONDS)
        # Concurrent batches do best if they are of equal size; more than half of the limit gains little.
        concurrent = [progress.size for progress in self._running]
        if concurrent or (self._streams.count == 1 and not self.limits.max_wait_seconds):
            equal_size = max(concurrent, default=last.size)
            return min(equal_size, self.limits.max_size // 2), linger_until
        return self.limits.max_size, begun + self.limits.max_wait_seconds

    def _next_batch(self) -> list[QueueEntry]:
        """Return the next batch; it is empty if all clients in the queue have gone."""
        if self._planned:
            return self._planned.popleft()
        entries = _drop_cancelled(self._queue)
        idle = self._streams.count - len(self._passes)
        share = min(self.limits.max_size, -(-len(entries) // idle)) or 1
        batch, *others = plan_batches(entries, replace(self.limits, max_size=share)) or [[]]
        if self.limits.padded:
            self._planned.extend(others)
            self._queue = []
        else:
            taken = set(map(id, batch))
            self._queue = [entry for entry in entries if id(entry) not in taken]
        if not self._queue:
            self._arrived.clear()
        return batch

    async def _pass(self, batch: Sequence[QueueEntry], executor: Executor, streams_held: int) -> None:
        """Run a batch, then release the streams that it has held."""
        begun = time.monotonic()
        try:
            await self._run(batch, executor)
        finally:
            now = time.monotonic()
            self._last_batch = CompletedBatch(len(batch), now - begun, now)
            self._target_reached.set()
            self._contended = self.busy or bool(self._queue or self._planned)
            for _ in range(streams_held):
                self._free_streams.release()

    async def _run(self, batch: Sequence[QueueEntry], executor: Executor) -> None:
        entries = _drop_cancelled(batch)
        if not entries:
            return
        progress = Progress([entry.output for entry in entries])
        self._running.add(progress)
        loop = asyncio.get_running_loop()
        sequences = [entry.sequence for entry in entries]
        try:
            outputs = await loop.run_in_executor(executor, self.forward, sequences, progress)
            results = list(zip(entries, outputs, strict=True))
        except Exception as error:
            await self._retry_individually(entries, error, executor)
        else:
            for entry, output in results:
                if not entry.output.done():
                    entry.output.set_result(output)
        finally:
            self._running.discard(progress)

    async def _retry_individually(
        self, batch: Sequence[QueueEntry], error: Exception, executor: Executor
    ) -> None:
        """Run a failed batch one sequence at a time, so that one bad input fails only its own request."""
        if len(batch) > 1:
            for entry in batch:
                await self._run([entry], executor)
        elif not batch[0].output.done():
            batch[0].output.set_exception(error)


def _drop_cancelled(entries: Sequence[QueueEntry]) -> list[QueueEntry]:
    """Return the entries whose client has neither disconnected nor timed out."""
    return [entry for entry in entries if not entry.output.done()]
