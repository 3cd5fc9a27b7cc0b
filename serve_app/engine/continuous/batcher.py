"""Continuous batching: sequences join and leave the batch at every step (Yu et al. 2022, "Orca").

    submit, stream ──> queue ──the budget has room──> running ──> a row of each step, beside pieces of prompts
                                                        │ ended, or its client has gone
                                                        └──> its place keeps the tokens, for prompts like it

While a step runs in its thread, the event loop makes text of what the step before has chosen. So a stop text
is found one step late, and what that step adds is dropped.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from serve_app.engine.batch_planner import BatchItem, BatchLimits
from serve_app.engine.continuous.choice import Choice, Row, Steps
from serve_app.engine.continuous.continuation import Continuation, RunningSequence, StreamedRequest
from serve_app.engine.continuous.figures import Figures
from serve_app.engine.continuous.pace import Pace
from serve_app.engine.continuous.places import WORTH_COPYING, Places, common_prefix
from serve_app.engine.records import Observers
from serve_app.engine.streams import Streams
from serve_app.engine.waiting import WaitingRequest, WaitingRequests

# A chosen token of each sequence, whose text is not made yet.
Pending = list[tuple[RunningSequence, Choice]]
# What a step computes: a sequence, and how many of its tokens.
Plan = list[tuple[RunningSequence, int]]

_ONE: Final = 1
# The memory of fewer tokens than this is left to a place that does not need it.
_WORTH_RELEASING: Final = 64

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class ContinuousBatcher:
    """Runs `steps` for all sequences together, in a thread of `streams`.

    Of `limits`, `max_size` bounds the sequences and `max_tokens` their tokens, with those to be generated;
    one sequence alone always gets in. They may be replaced at any time.
    """

    def __init__(
        self, steps: Steps, limits: BatchLimits, streams: Streams, observers: Observers | None = None
    ) -> None:
        self.limits = limits
        self._observers = observers or Observers()
        self.figures = Figures()
        self._steps = steps
        self._streams = streams
        self._queue = WaitingRequests()
        self._arrived = asyncio.Event()
        self._running: list[RunningSequence] = []
        self._pending: Pending = []
        self._places = Places()
        # What is to be done with places before the next step, in this order.
        self._preparations: list[Callable[[], None]] = []
        self._pace = Pace()
        self._step_began: float | None = None
        self._loop_task: asyncio.Task[None] | None = None

    async def submit(self, sequences: Sequence[BatchItem], *, counted: bool = True) -> list[Any]:
        """Return what becomes of `sequences`, in their order; cancelling gives them up."""
        if not sequences:
            return []
        request = WaitingRequest(sequences, asyncio.get_running_loop().create_future())
        request.counted = counted
        self._enqueue(request)
        return await request.answer

    def stream(self, continuation: Continuation, owner: object = None) -> StreamedRequest:
        """Return a request that hands on what each step adds; cancelling its answer gives it up.

        Those of the same `owner` take turns, and count as one request.
        """
        request = StreamedRequest(continuation, asyncio.get_running_loop().create_future())
        request.owner = owner or request
        # An error comes with what is handed on; nobody need ask for the answer.
        request.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        self._enqueue(request)
        return request

    @property
    def busy(self) -> bool:
        return bool(self._running)

    @property
    def held_tokens(self) -> int:
        """How many tokens the running sequences may have at most."""
        return sum(each.continuation.tokens for each in self._running)

    @property
    def load(self) -> float:
        """How full it is with what runs and what waits; at 1, all tokens or all sequences are taken.

        One request counts as 1 at most, because no other replica can take a part of it.
        """
        held: defaultdict[object, list[BatchItem]] = defaultdict(list)
        for each in self._running:
            if not each.is_abandoned:
                held[each.entry.request.owner].append(each.continuation)
        for request in self._queue.requests:
            if not request.is_over:
                held[request.owner] += request.waiting
        most, size = self.limits.max_tokens, self._most_sequences
        sequences = list(held.values())
        tokens = sum(min(most, sum(sequence.tokens for sequence in each)) for each in sequences)
        return max(tokens / most, sum(min(size, len(each)) for each in sequences) / size)

    def seconds_without_progress(self) -> float:
        """Return how long the step that runs has taken so far; 0 if none runs."""
        return 0.0 if self._step_began is None else time.monotonic() - self._step_began

    def end_streams(self, error: Exception) -> None:
        """Let every stream end with `error`."""
        for request in [*(each.entry.request for each in self._running), *self._queue.requests]:
            if isinstance(request, StreamedRequest):
                request.fail(error)

    async def close(self) -> None:
        """Run no further step, and end all requests."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop_task
        # The last token of some may be chosen, but their text not made yet.
        for each in (*self._running, *(each for each, _ in self._pending)):
            each.entry.request.answer.cancel()
        self._queue.drop_all()
        self._streams.close()

    @property
    def _most_sequences(self) -> int:
        return min(self.limits.max_size, self._steps.places)

    def _enqueue(self, request: WaitingRequest) -> None:
        if self._loop_task is None or self._loop_task.done():
            self._loop_task = asyncio.create_task(self._batching_loop())
        self._queue.append(request)
        self._arrived.set()

    async def _batching_loop(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception as error:
                logger.exception("the batch of %d sequences is given up", len(self._running))
                self._give_up(error)

    async def _turn(self) -> None:
        """Compute a step beside the texts of the one before, or wait for a request."""
        self._leave()
        self._admit()
        plan = self._plan()
        await self._prepare_places()
        if not plan and not self._pending:
            self._arrived.clear()
            if not len(self._queue):
                await self._arrived.wait()
            # Others are on the event loop already, and share the first step.
            await asyncio.sleep(0)
            return
        step = asyncio.ensure_future(self._step(plan))
        # The step begins before the event loop is busy with texts.
        await asyncio.sleep(0)
        _publish(self._pending)
        self._pending = await step

    def _give_up(self, error: Exception) -> None:
        """Fail all that run; what their places hold is not known."""
        for each in (*self._running, *(each for each, _ in self._pending)):
            each.entry.request.fail(error)
        used = [*self._places.drop(-1), *(each.place for each in self._running if each.place is not None)]
        self._running, self._pending, self._preparations = [], [], []
        with suppress(Exception):
            for place in used:
                self._steps.release(place)

    def _leave(self) -> None:
        """Let sequences go that are over; their places keep what they have computed."""
        self._queue.forget_those_that_are_over()
        for each in self._running:
            if each.is_abandoned or each.reason is not None:
                if each.entry.request.counted:
                    self.figures.note(each.figures)
                if each.place is not None and not self._places.keep(each.place, each.ids[: each.computed]):
                    self._preparations.append(partial(self._steps.release, each.place))
        self._running = [each for each in self._running if not each.is_abandoned and each.reason is None]

    def _admit(self) -> None:
        """Let sequences in, in their turn, while the budget has room for the next one."""
        held = self.held_tokens
        while len(self._running) < self._most_sequences:
            entries = self._queue.next(_ONE, _ONE)
            if not entries:
                return
            tokens = entries[0].sequence.tokens
            if self._running and held + tokens > self.limits.max_tokens:
                return
            self._queue.take(entries)
            self._running.append(RunningSequence(entries[0]))
            held += tokens

    def _plan(self) -> Plan:
        """Return the sequences of the next step: all that are generated, and pieces of the next prompts."""
        begun = [each for each in self._running if each.place is not None]
        plan = [(each, 1) for each in begun if each.missing == 1]
        left = self._pace.piece_tokens(len(plan))
        for each in self._running:
            if left <= 0:
                break
            if each.place is None:
                if self._waits_for_prefix(each):
                    continue
                self._begin(each)
                if each.missing == 1:
                    plan.append((each, 1))
                    continue
            if each.missing > 1:
                count = min(each.missing, left)
                plan.append((each, count))
                left -= count
        return plan

    def _waits_for_prefix(self, sequence: RunningSequence) -> bool:
        """Whether another one is about to compute the tokens with which this one begins, too."""
        return any(
            common_prefix(each.ids, sequence.ids[:-1]) >= each.computed + WORTH_COPYING
            for each in self._running
            if each.place is not None and each.missing > 1
        )

    def _begin(self, sequence: RunningSequence) -> None:
        """Give a sequence its place, with what is known of its prompt."""
        running = {each.place: each.ids[: each.computed] for each in self._running if each.place is not None}
        count = min(max(self.limits.max_size, len(running) + 1), self._steps.places)
        start = self._places.start(sequence.ids, running, count)
        if start.stale >= _WORTH_RELEASING:
            own = start.known if start.source is None else 0
            self._preparations.append(partial(self._steps.release, start.place, own))
        if start.source is not None:
            self._preparations.append(partial(self._steps.copy, start.source, start.place, start.known))
        sequence.place, sequence.computed, sequence.known = start.place, start.known, start.known
        for place in self._places.drop(self.limits.max_tokens - self.held_tokens):
            self._preparations.append(partial(self._steps.release, place))

    async def _prepare_places(self) -> None:
        """Copy and release what the next step needs, in its thread: it may be a hundred megabytes."""
        preparations, self._preparations = self._preparations, []
        if preparations:
            loop, executor = asyncio.get_running_loop(), self._streams.executor(exclusive=True)
            await loop.run_in_executor(executor, lambda: [prepare() for prepare in preparations])

    async def _step(self, plan: Plan) -> Pending:
        """Compute a step in its thread, and return what was chosen."""
        rows = [each.row(count) for each, count in plan]
        began = time.monotonic()
        try:
            choices = await self._compute(rows)
        except Exception as error:
            self._note(plan, began, failed=True)
            return await self._retry_individually(plan, error)
        pieces = sum(count for _, count in plan if count > 1)
        self._pace.note(time.monotonic() - began, sum(count == 1 for _, count in plan), pieces)
        self._note(plan, began)
        return _advance(plan, choices)

    def _note(self, plan: Plan, began: float, *, failed: bool = False) -> None:
        if plan:
            records = (each.entry.request.record for each, _ in plan)
            tokens = sum(count for _, count in plan)
            self._observers.note_batch(
                records, sequences=len(plan), tokens=tokens, began=began, failed=failed
            )

    async def _compute(self, rows: Sequence[Row]) -> list[Choice | None]:
        if not rows:
            return []
        loop = asyncio.get_running_loop()
        self._step_began = time.monotonic()
        try:
            executor = self._streams.executor(exclusive=True)
            choices = await loop.run_in_executor(executor, self._steps.step, rows)
        finally:
            self._step_began = None
        if len(choices) != len(rows):
            raise ValueError(f"the model made {len(choices)} choices for {len(rows)} sequences")
        return choices

    async def _retry_individually(self, plan: Plan, error: Exception) -> Pending:
        """Compute a failed step one sequence at a time, so that one bad input fails only its own request."""
        if len(plan) > 1:
            logger.warning("a step of %d sequences failed; each runs alone now", len(plan), exc_info=error)
        chosen: Pending = []
        for each, count in plan:
            try:
                choices = await self._compute([each.row(count)])
            except Exception as own_error:
                each.entry.request.fail(own_error)
                # What it has computed may be no numbers.
                assert each.place is not None
                self._steps.release(each.place)
                self._running.remove(each)
                continue
            chosen += _advance([(each, count)], choices)
        return chosen


def _advance(plan: Plan, choices: Sequence[Choice | None]) -> Pending:
    """Take over what a step has computed, and what it has chosen for the sequences that still want it."""
    pending: Pending = []
    for (each, count), choice in zip(plan, choices, strict=True):
        wanted = each.reason is None and not each.is_abandoned
        each.advance(count, choice if wanted else None)
        if wanted and choice is not None:
            pending.append((each, choice))
    return pending


def _publish(pending: Pending) -> None:
    """Hand on the text of what a step has chosen."""
    for each, choice in pending:
        if each.is_abandoned:
            continue
        try:
            each.publish(choice)
        except Exception as error:
            each.entry.request.fail(error)
