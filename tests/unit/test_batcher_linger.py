"""The queue delay after a batch: clients that send their next request when they have the last response."""

import asyncio

import pytest

from serve_app.engine import batcher as batching
from serve_app.engine.batch_planner import BatchLimits
from tests.unit.builders import run, until
from tests.unit.test_batcher import pieces, queued, with_busy_model
from tests.unit.test_streams import submitted, with_two_streams


@pytest.fixture
def patient(monkeypatch):
    """Linger for seconds, so that no test depends on the speed of the machine."""
    monkeypatch.setattr(batching, "_LINGER_FRACTION", 10_000)
    monkeypatch.setattr(batching, "_MAX_LINGER_SECONDS", 5)


@pytest.mark.usefixtures("patient")
def test_clients_that_just_got_their_responses_join_the_next_batch():
    async def scenario(batcher, model):
        [pair] = await queued(batcher, pieces("a", "b"))
        model.free.set()
        await pair
        tasks = await queued(batcher, pieces("c"))
        await asyncio.sleep(0.05)
        tasks += await queued(batcher, pieces("d"))
        await asyncio.gather(*tasks)

    assert run(with_busy_model(scenario))[1:] == [["a", "b"], ["c", "d"]]


async def one_stream_free(batcher, model):
    """Let one of two batches of two be over, then submit "e"; return the answers to come."""
    first = asyncio.create_task(batcher.submit(pieces(*"abcd")))
    await until(lambda: len(model.batches) == 2)
    model.free.release()
    await until(lambda: len(batcher._running) == 1)
    return [first, *await submitted(batcher, "e")]


async def two_streams_answer(batcher, model, tasks):
    """Wait until a third batch runs; let all end."""
    await until(lambda: len(model.batches) == 3)
    model.free.release(2)
    await asyncio.gather(*tasks)


@pytest.mark.usefixtures("patient")
def test_a_free_stream_lingers_for_the_clients_of_its_last_batch():
    async def scenario(batcher, model):
        tasks = await one_stream_free(batcher, model)
        await asyncio.sleep(0.05)
        assert len(model.batches) == 2
        tasks += await submitted(batcher, "f")
        await two_streams_answer(batcher, model, tasks)

    assert with_two_streams(scenario).names[2:] == [["e", "f"]]


@pytest.mark.usefixtures("patient")
def test_a_stream_waits_for_no_more_than_runs_beside_it():
    async def scenario(batcher, model):
        tasks = await one_stream_free(batcher, model)
        await asyncio.sleep(0.05)
        assert len(model.batches) == 2
        model.free.release()
        await tasks[0]
        await until(lambda: len(model.batches) == 3)
        model.free.release()
        await asyncio.gather(*tasks)

    assert with_two_streams(scenario).names[2:] == [["e"]]


@pytest.mark.usefixtures("patient")
def test_nothing_waits_for_more_than_half_of_what_a_batch_may_have():
    async def scenario(batcher, model):
        tasks = await one_stream_free(batcher, model)
        await two_streams_answer(batcher, model, tasks)

    with_two_streams(scenario, BatchLimits(2, 10_000, 0, padded=False))


def test_a_stream_does_not_linger_for_long():
    async def scenario(batcher, model):
        tasks = await one_stream_free(batcher, model)
        await two_streams_answer(batcher, model, tasks)

    assert with_two_streams(scenario).names[2:] == [["e"]]
