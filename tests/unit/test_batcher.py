import asyncio
import threading
from dataclasses import dataclass, field

import pytest

from serve_app.engine.base import Progress
from serve_app.engine.batch_planner import BatchLimits
from serve_app.engine.batcher import Batcher
from tests.harness.builders import run, until

ROOMY = BatchLimits(max_size=100, max_tokens=10_000, max_wait_seconds=0)


@dataclass(frozen=True)
class Piece:
    """A sequence of `tokens` tokens."""

    name: str
    tokens: int = 1
    group: str | None = None


@dataclass
class Recorder:
    """Stands in for a model: answers each name in capitals and notes the batches.

    While `free` is cleared, it holds still; names in `failing` make it raise.
    """

    batches: list = field(default_factory=list)
    failing: set = field(default_factory=set)
    free: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    progress: Progress | None = None

    def __call__(self, batch, progress):
        self.progress = progress
        names = [piece.name for piece in batch]
        self.batches.append(names)
        self.started.set()
        assert self.free.wait(5)
        if self.failing & set(names):
            raise ValueError(f"cannot run {names}")
        return [name.upper() for name in names]


def pieces(*names, tokens=1):
    return [Piece(name, tokens) for name in names]


async def with_busy_model(scenario, limits=ROOMY, failing=()):
    """Run `scenario(batcher, model)` while the model works on the piece "first"; return the batches."""
    model = Recorder(failing=set(failing))
    batcher = Batcher(model, limits)
    first = asyncio.create_task(batcher.submit(pieces("first")))
    try:
        await until(model.started.is_set)
        await scenario(batcher, model)
        model.free.set()
        await first
    finally:
        model.free.set()
        await batcher.close()
    return model.batches


async def queued(batcher, *groups):
    """Submit each of `groups` in a task of its own and let them reach the queue."""
    tasks = [asyncio.create_task(batcher.submit(group)) for group in groups]
    await asyncio.sleep(0)
    return tasks


def batches_of(*groups, limits=ROOMY):
    """Return the batches that a busy model makes of `groups`, each submitted on its own."""

    async def scenario(batcher, model):
        tasks = await queued(batcher, *groups)
        model.free.set()
        await asyncio.gather(*tasks)

    return run(with_busy_model(scenario, limits))[1:]


def test_an_idle_model_answers_at_once():
    async def scenario():
        model = Recorder()
        model.free.set()
        batcher = Batcher(model, ROOMY)
        try:
            return await batcher.submit(pieces("a", "b")), model.batches
        finally:
            await batcher.close()

    assert run(scenario()) == (["A", "B"], [["a", "b"]])


def test_all_that_came_while_the_model_was_busy_is_the_next_batch():
    assert batches_of(pieces("a"), pieces("b", "c"), pieces("d")) == [["a", "b", "d", "c"]]


def test_a_batch_is_cut_by_size():
    limits = BatchLimits(max_size=2, max_tokens=100, max_wait_seconds=0)
    assert batches_of(pieces("a", "b", "c"), limits=limits) == [["a", "b"], ["c"]]


def test_a_batch_is_cut_by_tokens_with_padding_counted():
    limits = BatchLimits(max_size=9, max_tokens=6, max_wait_seconds=0)
    mixed = [Piece("one", 1), Piece("two", 2), Piece("three", 3), Piece("huge", 50)]
    assert batches_of(mixed, limits=limits) == [["one", "two"], ["three"], ["huge"]]


def test_texts_of_about_the_same_length_share_a_batch():
    limits = BatchLimits(max_size=2, max_tokens=1000, max_wait_seconds=0)
    mixed = [Piece("long", 90), Piece("short", 2), Piece("longer", 95), Piece("shorter", 1)]
    assert batches_of(mixed, limits=limits) == [["long", "longer"], ["shorter", "short"]]


def test_requests_take_turns():
    limits = BatchLimits(max_size=3, max_tokens=100, max_wait_seconds=0)
    groups = pieces("a1", "a2", "a3", "a4", "a5"), pieces("b1", "b2"), pieces("c1")
    assert batches_of(*groups, limits=limits) == [["a1", "b1", "c1"], ["a2", "b2", "a3"], ["a4", "a5"]]


def test_the_one_whose_turn_it_is_runs_first_whatever_is_shorter():
    limits = BatchLimits(max_size=9, max_tokens=10, max_wait_seconds=0, overhead_tokens=1)
    groups = [Piece("long", 9)], pieces("a", "b"), pieces("c")
    assert batches_of(*groups, limits=limits) == [["long"], ["a", "c", "b"]]


def test_a_large_request_has_no_more_than_its_share_of_a_batch():
    # The overhead of a batch is 1 token, so 16 tokens of one request are many.
    limits = BatchLimits(max_size=9, max_tokens=1000, max_wait_seconds=0, overhead_tokens=1)
    large = [Piece(f"{number}", 8) for number in range(5)]
    assert batches_of(large, limits=limits) == [["0", "1"], ["2", "3"], ["4"]]


def test_a_request_that_comes_late_waits_for_no_more_than_two_batches():
    """Of 500 that wait, the first ones are in a batch that has begun when the other one comes."""

    async def scenario(batcher, model):
        large, late = await queued(batcher, pieces(*map(str, range(500))), pieces("late"))
        model.free.set()
        await asyncio.gather(large, late)

    limits = BatchLimits(max_size=4, max_tokens=100, max_wait_seconds=0)
    batches = run(with_busy_model(scenario, limits))
    assert "late" in batches[1] + batches[2]
    assert len(batches) == 1 + 126


def test_thousands_of_sequences_are_answered_in_the_callers_order():
    async def scenario(batcher, model):
        names = [str(number) for number in range(25_600)]
        [task] = await queued(batcher, pieces(*names))
        model.free.set()
        assert await task == names

    run(with_busy_model(scenario))


def test_groups_never_share_a_batch():
    mixed = [Piece("a1", group="a"), Piece("b1", group="b"), Piece("a2", group="a"), Piece("b2", group="b")]
    assert batches_of(mixed) == [["a1", "a2"], ["b1", "b2"]]


def test_answers_come_in_the_callers_order():
    async def scenario(batcher, model):
        [task] = await queued(batcher, [Piece("long", 9), Piece("short", 1), Piece("middle", 5)])
        model.free.set()
        assert await task == ["LONG", "SHORT", "MIDDLE"]

    assert run(with_busy_model(scenario))[1:] == [["short", "middle", "long"]]


def test_nothing_to_run_is_answered_with_nothing():
    async def scenario(batcher, model):
        assert await batcher.submit([]) == []

    assert run(with_busy_model(scenario)) == [["first"]]


def test_a_client_that_goes_away_frees_its_place():
    async def scenario(batcher, model):
        gone, stays = await queued(batcher, pieces("gone", "too"), pieces("stays"))
        gone.cancel()
        model.free.set()
        assert await stays == ["STAYS"]

    assert run(with_busy_model(scenario))[1:] == [["stays"]]


def test_a_client_that_goes_away_leaves_no_gap_in_a_batch():
    async def scenario(batcher, model):
        _, gone, *stay = await queued(batcher, *map(pieces, ("a", "gone", "b", "c")))
        gone.cancel()
        model.free.set()
        await asyncio.gather(*stay)

    limits = BatchLimits(max_size=2, max_tokens=100, max_wait_seconds=0)
    assert run(with_busy_model(scenario, limits))[1:] == [["a", "b"], ["c"]]


def test_a_client_that_goes_away_late_is_left_out_of_the_batches_still_to_come():
    async def scenario():
        model = Recorder()
        batcher = Batcher(model, BatchLimits(max_size=1, max_tokens=100, max_wait_seconds=0))
        try:
            first, second = await queued(batcher, pieces("first"), pieces("second"))
            await until(model.started.is_set)
            second.cancel()
            model.free.set()
            await first
            await batcher.submit(pieces("third"))
        finally:
            model.free.set()
            await batcher.close()
        return model.batches

    assert run(scenario()) == [["first"], ["third"]]


def test_a_sequence_that_fails_fails_alone():
    async def scenario(batcher, model):
        good, bad, other = await queued(batcher, pieces("good"), pieces("bad"), pieces("other"))
        model.free.set()
        assert await good == ["GOOD"]
        assert await other == ["OTHER"]
        with pytest.raises(ValueError, match="bad"):
            await bad

    run(with_busy_model(scenario, failing={"bad"}))


def test_a_batch_that_runs_apart_is_logged_and_each_of_it_is_progress(caplog):
    """The batch that failed is over, so it is not taken for stuck while its sequences run one by one."""

    async def scenario(batcher, model):
        running = []

        def forward(batch, progress):
            running.append(len(batcher._running))
            return model(batch, progress)

        tasks = await queued(batcher, *map(pieces, ("a", "bad", "b")))
        batcher.forward = forward
        model.free.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert running == [1, 1, 1, 1]

    run(with_busy_model(scenario, failing={"bad"}))
    [record] = caplog.records
    assert "a batch of 3 sequences failed" in record.message
    assert "cannot run" in str(record.exc_info[1])


def test_a_request_fails_with_its_first_failing_sequence_and_the_next_one_succeeds():
    async def scenario(batcher, model):
        model.free.set()
        with pytest.raises(ValueError, match="bad"):
            await batcher.submit(pieces("good", "bad", "bad-too"))
        assert await batcher.submit(pieces("next")) == ["NEXT"]

    run(with_busy_model(scenario, failing={"bad", "bad-too"}))


@pytest.mark.parametrize("outputs", [[], ["one", "two", "three"], None])
def test_a_model_that_returns_the_wrong_outputs_fails_and_the_batcher_goes_on(outputs):
    async def scenario():
        answers = {"broken": outputs, "fine": ["fine"]}
        batcher = Batcher(lambda batch, progress: answers[batch[0].name], ROOMY)
        try:
            with pytest.raises((ValueError, TypeError)):
                await batcher.submit(pieces("broken", "broken"))
            return await batcher.submit(pieces("fine"))
        finally:
            await batcher.close()

    assert run(scenario()) == ["fine"]


def test_new_limits_hold_from_the_next_batch_on():
    async def scenario(batcher, model):
        tasks = await queued(batcher, pieces("a"), pieces("b"))
        batcher.limits = BatchLimits(max_size=1, max_tokens=100, max_wait_seconds=0)
        model.free.set()
        await asyncio.gather(*tasks)

    assert run(with_busy_model(scenario))[1:] == [["a"], ["b"]]


def test_an_idle_model_waits_for_a_batch_to_fill_if_told_to():
    async def scenario():
        model = Recorder()
        model.free.set()
        batcher = Batcher(model, BatchLimits(max_size=9, max_tokens=100, max_wait_seconds=0.2))
        try:
            early = asyncio.create_task(batcher.submit(pieces("early")))
            await asyncio.sleep(0.01)
            await asyncio.gather(early, batcher.submit(pieces("late")))
        finally:
            await batcher.close()
        return model.batches

    assert run(scenario()) == [["early", "late"]]


def test_a_batch_that_is_full_waits_no_longer():
    async def scenario():
        model = Recorder()
        model.free.set()
        batcher = Batcher(model, BatchLimits(max_size=2, max_tokens=100, max_wait_seconds=60))
        try:
            early = asyncio.create_task(batcher.submit(pieces("early")))
            await asyncio.sleep(0.01)
            await asyncio.gather(early, batcher.submit(pieces("late")))
        finally:
            await batcher.close()

    run(scenario())


def test_busy_lasts_as_long_as_a_batch():
    async def scenario(batcher, model):
        assert batcher.busy
        await asyncio.sleep(0.02)
        assert batcher.seconds_without_progress() >= 0.02
        model.free.set()
        await until(lambda: not batcher.busy)
        assert batcher.seconds_without_progress() == 0

    run(with_busy_model(scenario))


def test_a_step_forward_is_progress():
    async def scenario(batcher, model):
        await asyncio.sleep(0.05)
        before = batcher.seconds_without_progress()
        assert model.progress.tick()
        assert batcher.seconds_without_progress() < before

    run(with_busy_model(scenario))


def test_a_long_pass_learns_that_nobody_waits_any_more():
    async def scenario():
        model = Recorder()
        batcher = Batcher(model, ROOMY)
        task = asyncio.create_task(batcher.submit(pieces("a", "b")))
        try:
            await until(model.started.is_set)
            waited_for = model.progress.tick()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return waited_for, model.progress.tick()
        finally:
            model.free.set()
            await batcher.close()

    assert run(scenario()) == (True, False)
