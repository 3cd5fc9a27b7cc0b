"""How full a replica says it is: by tokens or by sequences, with what waits, and not by health checks."""

import asyncio
from types import SimpleNamespace

import pytest

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.deployment import Model
from serve_app.engine.batch_engine import BatchEngine
from serve_app.scaling import LOAD
from tests.harness.builders import run, until
from tests.unit import fake_model
from tests.unit.fake_steps import FakeSteps, batching, continuation, held, limits

ARGS = ModelArgs(name="chat", uri="file:///models/chat", task=Task.TEXT_GENERATION)


def of_tokens(tokens):
    return continuation([7] * (tokens - 5), new_tokens=5)


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([[40]], 0.4),
        ([[40], [40]], 0.8),
        # The third one waits.
        ([[40], [40], [40]], 1.2),
        # Sequences are scarcer than tokens.
        ([[10]] * 4, 0.5),
        ([[10]] * 12, 1.5),
        ([[10, 10], [10]], 0.375),
        # A request stays in its replica, so it asks for no more than one.
        ([[40] * 20], 1.0),
        ([[200]], 1.0),
        ([[40] * 20, [40]], 1.4),
    ],
)
def test_a_replica_is_as_full_as_its_scarcest_room(requests, expected):
    async def scenario():
        async with batching(max_size=8, max_tokens=100) as (batcher, steps):
            assert batcher.load == 0
            tasks = await held(
                batcher, steps, *([of_tokens(each) for each in request] for request in requests)
            )
            full = batcher.load
            steps.free.set()
            await asyncio.gather(*tasks)
            await until(lambda: batcher.load == 0)
            return full

    assert run(scenario()) == pytest.approx(expected)


def test_several_streams_of_one_request_ask_for_no_more_than_one_replica():
    async def scenario():
        async with batching(max_tokens=100) as (batcher, steps):
            await held(batcher, steps, [of_tokens(10)])
            owner = object()
            streams = [batcher.stream(of_tokens(40), owner) for _ in range(20)]
            full = batcher.load
            for stream in streams:
                stream.answer.cancel()
            return full

    assert run(scenario()) == pytest.approx(1.125)


def test_a_replica_has_room_for_no_more_sequences_than_its_model_has_places():
    async def scenario():
        async with batching(max_size=8, places=4) as (batcher, steps):
            await held(batcher, steps, [of_tokens(10)])
            return batcher.load

    assert run(scenario()) == 1 / 4


def test_a_client_that_has_gone_and_new_limits_count_at_once():
    async def scenario():
        async with batching(max_tokens=100) as (batcher, steps):
            _, gone = await held(batcher, steps, [of_tokens(40)], [of_tokens(80)])
            assert batcher.load == 1.2
            gone.cancel()
            await asyncio.sleep(0)
            assert batcher.load == 0.4
            batcher.limits = limits(max_tokens=400)
            assert batcher.load == 1 / 8

    run(scenario())


class StepsModel(fake_model.FakeModel):
    """Is computed in steps of the double, each text as 35 tokens and 5 new ones."""

    warmup_parameters = {}

    def __init__(self):
        super().__init__()
        self.steps = FakeSteps()

    def encode(self, text, parameters, limit):
        return [of_tokens(40)]

    def decode(self, text, encoded, outputs, parameters):
        return {"generated_text": text}


def stats_of(engine):
    """Return what the replica of `engine` reports, by the method that Serve calls."""
    return Model.func_or_class.record_autoscaling_stats(SimpleNamespace(_engine=engine))


def test_a_replica_reports_requests_and_no_health_check():
    async def scenario():
        model = StepsModel()
        engine = BatchEngine(ARGS, model, UserConfig(max_batch_tokens=100))
        model.steps.hold()
        check = asyncio.create_task(engine.check_health())
        await until(model.steps.started.is_set)
        during_check = await stats_of(engine)
        request = asyncio.create_task(engine.answer(["hello"]))
        await until(lambda: engine._batcher.load > 0.4)
        during_both = await stats_of(engine)
        model.steps.free.set()
        await asyncio.gather(check, request)
        await engine.close()
        return during_check, during_both

    assert run(scenario()) == ({LOAD: 0.0}, {LOAD: 0.8})


def test_a_model_that_is_not_computed_in_steps_reports_nothing():
    async def scenario():
        async with fake_model.serving() as (engine, _):
            return await stats_of(engine)

    assert run(scenario()) == {}
