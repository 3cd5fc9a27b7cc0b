"""When an engine calls its model healthy; Serve replaces the replica when it does not."""

import asyncio

import pytest

from serve_app.engine import batch_engine as engine_module
from serve_app.engine.batch_engine import StuckModelError
from serve_app.http.errors import ModelFailedError
from tests.unit import fake_model
from tests.unit.builders import run
from tests.unit.fake_model import fill, serving


def test_a_healthy_idle_model_is_really_run():
    async def scenario():
        async with serving() as (engine, model):
            await engine.check_health()
            return model.batches

    assert run(scenario()) == [["ready"]]


def test_the_probe_does_not_depend_on_the_settings_of_the_endpoint():
    async def scenario():
        async with serving(parameters={"nope": 1}) as (engine, model):
            await engine.warm_up()
            return model.batches

    assert run(scenario()) == [["ready"]]


def test_a_busy_model_that_moves_is_healthy_as_it_is():
    async def scenario():
        async with serving(request_timeout_seconds=5) as (engine, model):
            await fill(engine, model, 1)
            await engine.check_health()
            return model.batches

    assert run(scenario()) == [["held0"]]


def test_a_model_that_stopped_moving_is_sick(monkeypatch):
    monkeypatch.setattr(engine_module, "SHORTEST_STUCK_SECONDS", 0.05)

    async def scenario():
        async with serving(request_timeout_seconds=0.05) as (engine, model):
            [task] = await fill(engine, model, 1)
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.02)
            with pytest.raises(StuckModelError, match="has been running one batch"):
                await engine.check_health()

    run(scenario())


def test_a_batch_that_outlasts_its_clients_patience_is_not_stuck():
    async def scenario():
        async with serving(request_timeout_seconds=0.05) as (engine, model):
            [task] = await fill(engine, model, 1)
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.02)
            await engine.check_health()

    run(scenario())


def test_the_endpoints_limits_do_not_make_it_sick():
    async def scenario():
        async with serving(max_input_tokens=1, parameters={"top_k": 3}) as (engine, model):
            model.warmup_text = "several words as a probe"
            await engine.check_health()

    run(scenario())


def test_a_model_that_fails_on_the_probe_is_sick():
    async def scenario():
        async with serving() as (engine, model):
            model.warmup_text = fake_model.BROKEN
            with pytest.raises(ModelFailedError):
                await engine.check_health()

    run(scenario())
