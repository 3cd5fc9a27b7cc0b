"""Batches side by side."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

from serve_app.engine.batch_planner import BatchLimits
from serve_app.engine.batcher import Batcher
from serve_app.engine.streams import Streams
from tests.harness.builders import run, until
from tests.unit.test_batcher import Piece, pieces


@dataclass
class RunBatch:
    """What a batch ran as."""

    names: list
    thread: int
    exclusive: bool


class TwoStreams:
    """A model with two streams that notes where its batches run; each waits until it is let go."""

    def __init__(self, count=2, side=False):
        self.streams = Streams(count, self._prepare, side=side)
        self.prepared = {}
        self.batches = []
        self.free = threading.Semaphore(0)

    def _prepare(self, exclusive):
        self.prepared[threading.get_ident()] = exclusive

    def __call__(self, batch, progress):
        thread = threading.get_ident()
        self.batches.append(RunBatch([piece.name for piece in batch], thread, self.prepared[thread]))
        assert self.free.acquire(timeout=5)
        return [piece.name.upper() for piece in batch]

    @property
    def names(self):
        return [batch.names for batch in self.batches]


def with_two_streams(
    scenario,
    limits=BatchLimits(8, 10_000, 0, padded=False),  # noqa: B008 - is frozen
    **streams,
):
    async def body():
        model = TwoStreams(**streams)
        batcher = Batcher(model, limits, model.streams)
        try:
            await scenario(batcher, model)
        finally:
            await batcher.close()
        return model

    return run(body())


async def submitted(batcher, *names):
    tasks = [asyncio.create_task(batcher.submit(pieces(name))) for name in names]
    await asyncio.sleep(0)
    return tasks


def test_a_lone_batch_has_all_threads_and_nothing_beside_it():
    async def scenario(batcher, model):
        first = await submitted(batcher, "first")
        await until(lambda: len(model.batches) == 1)
        others = await submitted(batcher, "second", "third")
        await asyncio.sleep(0.05)
        assert len(model.batches) == 1
        model.free.release()
        await until(lambda: len(model.batches) == 3)
        model.free.release(2)
        assert await asyncio.gather(*first, *others) == [["FIRST"], ["SECOND"], ["THIRD"]]
        last = await submitted(batcher, "last")
        model.free.release()
        await asyncio.gather(*last)

    model = with_two_streams(scenario)
    assert [batch.exclusive for batch in model.batches] == [True, False, False, True]


def test_what_others_have_waited_for_is_followed_by_batches_side_by_side():
    async def scenario(batcher, model):
        tasks = await submitted(batcher, "a")
        await until(lambda: len(model.batches) == 1)
        tasks += await submitted(batcher, "b")
        model.free.release()
        await until(lambda: len(model.batches) == 2)
        tasks += await submitted(batcher, "c")
        await until(lambda: len(model.batches) == 3)
        model.free.release(2)
        await asyncio.gather(*tasks)

    assert [batch.exclusive for batch in with_two_streams(scenario).batches] == [True, False, False]


def test_what_comes_together_is_shared_among_the_streams():
    async def scenario(batcher, model):
        answers = asyncio.create_task(batcher.submit(pieces(*"abcdefg")))
        await until(lambda: len(model.batches) == 2)
        model.free.release(2)
        assert await answers == list("ABCDEFG")

    model = with_two_streams(scenario)
    assert sorted(model.names) == [list("abcd"), list("efg")]
    assert {batch.exclusive for batch in model.batches} == {False}
    assert len({batch.thread for batch in model.batches}) == 2


def test_no_more_batches_run_than_there_are_streams():
    async def scenario(batcher, model):
        tasks = await submitted(batcher, "a", "b")
        await until(lambda: len(model.batches) == 2)
        tasks += await submitted(batcher, "x", "y")
        await asyncio.sleep(0.05)
        assert len(model.batches) == 2
        # All that came meanwhile is the next batch of the stream that is free first.
        model.free.release()
        await until(lambda: len(model.batches) == 3)
        model.free.release(2)
        await asyncio.gather(*tasks)

    names = with_two_streams(scenario).names
    assert sorted(names[:2]) == [["a"], ["b"]]
    assert names[2:] == [["x", "y"]]


def test_without_padding_what_comes_later_joins_and_nobody_is_overtaken_by_another_group():
    async def scenario(batcher, model):
        busy = await submitted(batcher, "a", "b")
        await until(lambda: len(model.batches) == 2)
        waiting = [Piece("1", group="x"), Piece("2", group="y"), Piece("3", group="x")]
        answers = asyncio.create_task(batcher.submit(waiting))
        await asyncio.sleep(0.02)
        late = asyncio.create_task(batcher.submit([Piece("4", group="x")]))
        await asyncio.sleep(0.02)
        model.free.release(1)
        await until(lambda: len(model.batches) == 3)
        model.free.release(1)
        await until(lambda: len(model.batches) == 4)
        model.free.release(4)
        await asyncio.gather(*busy, answers, late)

    assert with_two_streams(scenario).names[2:] == [["1", "4", "3"], ["2"]]


# The overhead of a batch is 1 token, so requests of more than 16 tokens are large.
SMALL_OVERHEAD = BatchLimits(8, 10_000, 0, overhead_tokens=1, padded=False)


def with_a_side_stream(scenario, count=2):
    return with_two_streams(scenario, SMALL_OVERHEAD, count=count, side=True)


def large(name):
    return [Piece(f"{name}{number}", 10) for number in range(4)]


@pytest.mark.parametrize("count", [1, 2])
def test_small_requests_run_beside_large_ones(count):
    async def scenario(batcher, model):
        first = asyncio.create_task(batcher.submit(large("a")))
        await until(lambda: len(model.batches) == count)
        small = await submitted(batcher, "small")
        await until(lambda: len(model.batches) == count + 1)
        later = await submitted(batcher, "later", "last")
        model.free.release(9)
        await asyncio.gather(first, *small, *later)

    model = with_a_side_stream(scenario, count)
    assert model.names[: count + 1] == [*[["a0", "a1"], ["a2", "a3"]][:count], ["small"]]
    assert not model.batches[count].exclusive


def test_small_and_large_ones_that_wait_together_share_no_batch():
    async def scenario(batcher, model):
        first = await submitted(batcher, "first")
        await until(lambda: len(model.batches) == 1)
        both = [asyncio.create_task(batcher.submit(large("a")))]
        both += await submitted(batcher, "small", "other")
        model.free.release(1)
        await until(lambda: len(model.batches) == 3)
        model.free.release(9)
        await asyncio.gather(*first, *both)

    names = with_a_side_stream(scenario, count=1).names
    # Both run at once.
    assert sorted(names[1:3]) == [["a0", "a1"], ["small", "other"]]


def test_large_ones_do_not_run_in_the_side_stream():
    async def scenario(batcher, model):
        both = [asyncio.create_task(batcher.submit(large(name))) for name in "ab"]
        await until(lambda: len(model.batches) == 1)
        await asyncio.sleep(0.05)
        assert len(model.batches) == 1
        model.free.release(9)
        await asyncio.gather(*both)

    with_a_side_stream(scenario, count=1)


def test_small_ones_do_not_run_beside_small_ones():
    async def scenario(batcher, model):
        first = await submitted(batcher, "first")
        await until(lambda: len(model.batches) == 1)
        second = await submitted(batcher, "second")
        await asyncio.sleep(0.05)
        assert len(model.batches) == 1
        model.free.release(2)
        await asyncio.gather(*first, *second)

    with_a_side_stream(scenario, count=1)


def test_without_a_side_stream_a_small_one_waits_for_its_turn():
    async def scenario(batcher, model):
        first = asyncio.create_task(batcher.submit(large("a")))
        await until(lambda: len(model.batches) == 2)
        small = await submitted(batcher, "small")
        await asyncio.sleep(0.05)
        assert len(model.batches) == 2
        model.free.release(9)
        await asyncio.gather(first, *small)

    with_two_streams(scenario, SMALL_OVERHEAD)
