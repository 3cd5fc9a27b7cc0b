"""Dynamic batching: whenever the model is free, take what is queued, of each request in turn.

At low load no request waits for a batch. Under load the next batch is delayed by 20 % of the last one's run
time, at most 20 ms. Clients whose responses have just gone out can then join it.

    submit ──> queue ──a stream is free──> _wait_for_batch, _next_batch ──> _pass: `forward` ──> outputs
                 │                                                            │ raises
                 │                                                            └──> _retry_individually
                 └──all streams run large requests──> _side_passes: `forward` in a thread of its own
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from serve_app.engine.base import Progress
from serve_app.engine.batch_planner import BatchItem, BatchLimits, plan_batches
from serve_app.engine.records import Observers
from serve_app.engine.streams import Streams
from serve_app.engine.waiting import QueueEntry, WaitingRequest, WaitingRequests

# How long the next batch lingers for clients whose responses have just gone out: a fraction of the last
# batch's run time, up to a maximum. Without it, clients that wait for their responses get small batches.
_LINGER_FRACTION: Final = 0.2
_MAX_LINGER_SECONDS: Final = 0.02

# Sequences of about equal length are looked for among so many times the size of a batch, but not among more
# than _WINDOW, because that takes time on the event loop.
_BATCHES: Final = 4
_WINDOW: Final = 128

# A request of more tokens than this many times the overhead of a batch is large. Of each request, no more are
# in one batch: that costs 6 % of its speed at most, and others wait for less.
_LARGE: Final = 16

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


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

    def __init__(
        self,
        forward: Forward,
        limits: BatchLimits,
        streams: Streams | None = None,
        observers: Observers | None = None,
    ) -> None:
        self.forward = forward
        self.limits = limits
        self._observers = observers or Observers()
        self._streams = streams or Streams()
        self._free_streams = asyncio.Semaphore(self._streams.count)
        self._queue = WaitingRequests()
        self._arrived = asyncio.Event()
        # Set when `_target_size` sequences are queued, and after each batch, when the target may change.
        self._target_reached = asyncio.Event()
        self._target_size = 0
        self._running: set[Progress] = set()
        # Whether each pass has sequences of a large request, and how many streams all of them hold.
        self._passes: dict[asyncio.Task[None], bool] = {}
        self._streams_held = 0
        # Whether something else was running or queued when the last batch ended.
        self._contended = False
        self._last_batch = CompletedBatch(0, 0, 0)
        self._loop_task: asyncio.Task[None] | None = None
        self._side_task: asyncio.Task[None] | None = None

    async def submit(self, sequences: Sequence[BatchItem]) -> list[Any]:
        """Return the outputs of `sequences`, in their order; cancelling takes them out of the queue."""
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._batching_loop())
        if not sequences:
            return []
        request = WaitingRequest(sequences, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._arrived.set()
        if len(self._queue) >= self._target_size:
            self._target_reached.set()
        self._start_side_passes()
        return await request.answer

    def seconds_without_progress(self) -> float:
        """Return how long a running batch has made no progress; 0 if none is running."""
        return max((time.monotonic() - progress.last for progress in self._running), default=0.0)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    async def close(self) -> None:
        """Run no further batch; do not wait for a running one."""
        for task in filter(None, (self._loop_task, self._side_task)):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._queue.drop_all()
        self._streams.close()

    async def _batching_loop(self) -> None:
        while True:
            await self._free_streams.acquire()
            await self._arrived.wait()
            await self._wait_for_batch()
            batch = self._next_batch()
            # A batch that is alone takes all streams; their cores would be idle otherwise.
            exclusive = not (self._passes or self._queue or self._contended)
            streams_held = self._streams.count if exclusive else 1
            for _ in range(streams_held - 1):
                await self._free_streams.acquire()
            self._streams_held += streams_held
            task = asyncio.create_task(
                self._pass(batch, self._streams.executor(exclusive=exclusive), streams_held)
            )
            self._passes[task] = any(entry.request.tokens > self._large for entry in batch)
            task.add_done_callback(self._passes.pop)
            self._start_side_passes()

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

    def _next_batch(self, up_to: float = math.inf) -> list[QueueEntry]:
        """Take the next batch out of the queue, of requests of at most `up_to` tokens.

        It is empty if there are none, or all clients in the queue have gone.
        """
        size = self.limits.max_size
        entries = self._queue.next(max(size, min(_BATCHES * size, _WINDOW)), self._large, up_to)
        if not entries:
            if not self._queue:
                self._arrived.clear()
            return []
        if self._streams.side is not None:
            # A small one would wait for the large ones in its batch.
            is_large = entries[0].request.tokens > self._large
            entries = [entry for entry in entries if (entry.request.tokens > self._large) is is_large]
        idle = max(1, self._streams.count - len(self._passes))
        share = min(size, -(-len(self._queue) // idle))
        batches = plan_batches(entries, replace(self.limits, max_size=share))
        # Whoever has waited longest for a turn gets it now.
        batch = next(batch for batch in batches if entries[0] in batch)
        self._queue.take(batch)
        if not self._queue:
            self._arrived.clear()
        return batch

    @property
    def _large(self) -> int:
        """Tokens above which a request is large."""
        return _LARGE * self.limits.overhead_tokens

    def _start_side_passes(self) -> None:
        if self._side_task is None and self._queue and self._large_ones_have_all_streams():
            self._side_task = asyncio.create_task(self._side_passes())

    async def _side_passes(self) -> None:
        """Run small requests in a thread of their own for as long as large ones have all streams.

        The processor is shared then; a small request would wait many times longer for a stream.
        """
        assert self._streams.side is not None
        try:
            while self._large_ones_have_all_streams():
                batch = self._next_batch(up_to=self._large)
                if not batch:
                    return
                await self._run(batch, self._streams.side)
        finally:
            self._side_task = None

    def _large_ones_have_all_streams(self) -> bool:
        """Whether small requests may run beside large ones, and have to."""
        all_held = self._streams_held == self._streams.count
        return self._streams.side is not None and all_held and all(self._passes.values())

    async def _pass(self, batch: Sequence[QueueEntry], executor: Executor, streams_held: int) -> None:
        """Run a batch, then release the streams that it has held."""
        begun = time.monotonic()
        try:
            await self._run(batch, executor)
        finally:
            now = time.monotonic()
            self._last_batch = CompletedBatch(len(batch), now - begun, now)
            self._target_reached.set()
            self._contended = self.busy or bool(self._queue)
            self._streams_held -= streams_held
            for _ in range(streams_held):
                self._free_streams.release()

    async def _run(self, batch: Sequence[QueueEntry], executor: Executor) -> None:
        entries = [entry for entry in batch if not entry.request.is_over]
        if not entries:
            return
        progress = Progress({entry.request.answer for entry in entries}, len(entries))
        self._running.add(progress)
        loop = asyncio.get_running_loop()
        sequences = [entry.sequence for entry in entries]
        began = time.monotonic()
        try:
            outputs = await loop.run_in_executor(executor, self.forward, sequences, progress)
            results = list(zip(entries, outputs, strict=True))
        except Exception as error:
            failure = error
            self._note(entries, began, failed=True)
        else:
            self._note(entries, began)
            for entry, output in results:
                entry.request.set_output(entry.number, output)
            return
        finally:
            self._running.discard(progress)
        await self._retry_individually(entries, failure, executor)

    def _note(self, entries: Sequence[QueueEntry], began: float, *, failed: bool = False) -> None:
        records = (entry.request.record for entry in entries)
        tokens = sum(entry.sequence.tokens for entry in entries)
        self._observers.note_batch(records, sequences=len(entries), tokens=tokens, began=began, failed=failed)

    async def _retry_individually(
        self, batch: Sequence[QueueEntry], error: Exception, executor: Executor
    ) -> None:
        """Run a failed batch one sequence at a time, so that one bad input fails only its own request."""
        if len(batch) == 1:
            batch[0].request.fail(error)
            return
        logger.warning("a batch of %d sequences failed; each runs alone now", len(batch), exc_info=error)
        for entry in batch:
            await self._run([entry], executor)
