"""Continuations of the engine: streamed or not, what they hold of the replica, and that they give it back."""

import asyncio
from types import SimpleNamespace

import pytest

from serve_app.engine.base import EncodedSequence
from serve_app.engine.generation import FinishReason, GenerationRequest
from serve_app.http.errors import (
    InvalidInputError,
    ModelFailedError,
    ModelNotReadyError,
    OverloadedError,
    RequestTimeoutError,
)
from tests.harness.builders import run, until
from tests.unit import fake_model
from tests.unit.fake_generator import (
    ONE_AT_A_TIME,
    PROMPT,
    FakeGenerator,
    generating,
    parts_of,
    request,
    right,
)
from tests.unit.fake_steps import BAD, text_of


def test_each_token_comes_once_and_in_order():
    async def scenario():
        async with generating() as (engine, _):
            long = PROMPT * 6
            generation = await engine.generate(request(long))
            parts = await parts_of(generation)
            assert [token.id for part in parts for token in part.tokens] == right(long).tokens
            assert [part.text for part in parts] == [token.text for part in parts for token in part.tokens]
            assert [part.finish_reason for part in parts] == [None] * 5 + [FinishReason.LENGTH]
            assert (generation.prompt_tokens, generation.cached_tokens) == (18, 0)
            assert generation.generated_tokens == 6
            follow_up = [*long, *right(long).tokens, 7]
            again = await engine.generate(request(follow_up))
            assert len(await parts_of(again)) == 6
            assert again.cached_tokens == len(long) + 5

    run(scenario())


def test_a_slow_reader_gets_all_of_it_and_holds_nobody_up():
    async def scenario():
        async with generating() as (engine, steps):
            slow = await engine.generate(request())
            parts = aiter(slow)
            first = await anext(parts)
            await parts_of(await engine.generate(request([7, 8])))
            await until(lambda: not engine._batcher.busy)
            read = [first]
            async for part in parts:
                await asyncio.sleep(0.002)
                read.append(part)
            assert [token.id for part in read for token in part.tokens] == right().tokens

    run(scenario())


def test_a_stop_text_is_no_part_of_what_is_streamed():
    async def scenario():
        async with generating() as (engine, _):
            stop = text_of(right(new_tokens=30).tokens)[4:7]
            parts = await parts_of(await engine.generate(request(max_new_tokens=30, stop=[stop])))
            assert "".join(part.text for part in parts) == text_of(right().tokens[:4])
            assert [part.finish_reason for part in parts].index(FinishReason.STOP) == len(parts) - 1 == 6

    run(scenario())


@pytest.mark.parametrize("begun", [0, 1, 3])
def test_one_that_is_closed_frees_what_it_held(begun):
    async def scenario():
        async with generating(**ONE_AT_A_TIME) as (engine, steps):
            for _ in range(3):
                generation = await engine.generate(request(max_new_tokens=500))
                parts = aiter(generation)
                for _ in range(begun):
                    await anext(parts)
                await generation.aclose()
                await generation.aclose()
                assert engine._admission.requests == 0
            await until(lambda: not engine._batcher.busy)
            assert steps.computed < 300

    run(scenario())


@pytest.mark.parametrize("begun", [0, 2])
def test_what_is_closed_tells_no_more(begun):
    async def scenario():
        async with generating() as (engine, _):
            generation = await engine.generate(request(max_new_tokens=500))
            parts = aiter(generation)
            for _ in range(begun):
                await anext(parts)
            await generation.aclose()
            assert [part async for part in parts] == []

    run(scenario())


def test_a_reader_that_waits_is_let_go_when_another_task_closes():
    async def scenario():
        async with generating() as (engine, steps):
            steps.hold()
            generation = await engine.generate(request())
            reader = asyncio.create_task(parts_of(generation))
            await until(steps.started.is_set)
            await generation.aclose()
            assert await reader == []
            steps.free.set()

    run(scenario())


def test_closing_after_the_end_is_harmless():
    async def scenario():
        async with generating() as (engine, _):
            generation = await engine.generate(request())
            await parts_of(generation)
            await generation.aclose()

    run(scenario())


def test_a_reader_that_is_cancelled_frees_what_it_held():
    async def scenario():
        async with generating(**ONE_AT_A_TIME) as (engine, steps):
            steps.hold()
            readers = [asyncio.create_task(parts_of(await engine.generate(request()))) for _ in range(2)]
            await until(steps.started.is_set)
            await asyncio.sleep(0)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            assert engine._admission.requests == 0
            steps.free.set()

    run(scenario())


def test_without_a_first_token_in_time_it_is_given_up():
    async def scenario():
        async with generating(request_timeout_seconds=0.05) as (engine, steps):
            steps.hold()
            generation = await engine.generate(request())
            with pytest.raises(RequestTimeoutError, match=r"no first token within 0\.05 seconds"):
                await parts_of(generation)
            assert engine._admission.requests == 0
            steps.free.set()

    run(scenario())


def test_the_time_limit_is_for_the_first_token_only():
    async def scenario():
        async with generating(request_timeout_seconds=0.05) as (engine, steps):
            parts = aiter(await engine.generate(request()))
            await anext(parts)
            steps.hold()
            rest = asyncio.create_task(parts_of(parts))
            await asyncio.sleep(0.1)
            steps.free.set()
            assert len(await rest) == 5

    run(scenario())


def test_a_replica_that_is_full_refuses_and_takes_more_when_one_is_over():
    async def scenario():
        async with generating(**ONE_AT_A_TIME) as (engine, steps):
            steps.hold()
            generations = [await engine.generate(request()) for _ in range(2)]
            with pytest.raises(OverloadedError, match="2 requests are in this replica, which takes 2"):
                await engine.generate(request())
            with pytest.raises(OverloadedError):
                await engine.predict(["one more"])
            steps.free.set()
            await parts_of(generations[0])
            third = await engine.generate(request())
            await parts_of(third)
            await generations[1].aclose()

    run(scenario())


def test_a_text_that_is_done_holds_nothing_although_nobody_reads_it():
    async def scenario():
        async with generating(**ONE_AT_A_TIME) as (engine, _):
            unread = [await engine.generate(request()) for _ in range(2)]
            await until(lambda: not engine._admission.requests)
            await parts_of(await engine.generate(request()))
            assert [len(await parts_of(each)) for each in unread] == [6, 6]

    run(scenario())


def test_a_health_check_is_nobody_s_request():
    async def scenario():
        async with generating() as (engine, _):
            await engine.check_health()
            assert engine.figures.description["requests"] == 0
            await parts_of(await engine.generate(request()))
            await until(lambda: engine.figures.description["requests"] == 1)

    run(scenario())


def test_large_ones_together_have_a_limit_of_tokens():
    async def scenario():
        async with generating(**ONE_AT_A_TIME, max_input_tokens=10) as (engine, steps):
            steps.hold()
            large = await engine.generate(request(max_new_tokens=100))
            with pytest.raises(
                OverloadedError, match="the request has 103 tokens, and large requests with 103"
            ):
                await engine.generate(request(max_new_tokens=100))
            assert engine._admission.requests == 1
            small = await engine.generate(request())
            await small.aclose()
            await large.aclose()
            steps.free.set()

    run(scenario())


@pytest.mark.parametrize(
    ("prompt", "error"),
    [([], InvalidInputError), ([0] * 600, InvalidInputError), ([5, BAD], ModelFailedError)],
)
def test_one_that_fails_frees_what_it_held(prompt, error):
    async def scenario():
        async with generating(**ONE_AT_A_TIME) as (engine, _):
            for _ in range(3):
                with pytest.raises(error):
                    await parts_of(await engine.generate(request(prompt)))
            assert len(await parts_of(await engine.generate(request()))) == 6

    run(scenario())


def test_a_bad_parameter_holds_nothing():
    async def scenario():
        async with generating() as (engine, _):
            with pytest.raises(InvalidInputError, match="min_p"):
                await engine.generate(request(min_p=2))

    run(scenario())


def test_one_that_is_cancelled_before_it_is_accepted_frees_what_it_held():
    async def scenario():
        async with generating(**ONE_AT_A_TIME) as (engine, _):
            waiting = asyncio.create_task(engine.generate(request()))
            await asyncio.sleep(0)
            assert engine._admission.requests == 1
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert engine._admission.requests == 0

    run(scenario())


def test_whole_answers_share_the_batch_with_streams():
    async def scenario():
        async with generating() as (engine, steps):
            steps.hold()
            stream = asyncio.create_task(parts_of(await engine.generate(request())))
            whole = asyncio.create_task(engine.predict(["a b c d", "a"], {"max_new_tokens": 4}))
            await until(lambda: steps.started.is_set() and len(engine._batcher._queue) >= 2)
            steps.free.set()
            expected = [right(range(size), 4).tokens for size in (4, 1)]
            assert await whole == [{"generated_text": text_of(each)} for each in expected]
            assert len(await stream) == 6
            assert max(len(step) for step in steps.steps) == 3

    run(scenario())


def test_streams_end_with_an_error_when_the_replica_stops():
    async def scenario():
        async with generating() as (engine, steps):
            steps.hold()
            reader = asyncio.create_task(parts_of(await engine.generate(request())))
            await until(steps.started.is_set)
            engine.end_streams()
            with pytest.raises(ModelNotReadyError, match="this replica stops"):
                await reader
            steps.free.set()

    run(scenario())


def test_nobody_waits_for_an_engine_that_is_closed():
    async def scenario():
        async with generating() as (engine, steps):
            parts = aiter(await engine.generate(request(max_new_tokens=500)))
            await anext(parts)
            await engine.close()
            with pytest.raises(ModelNotReadyError):
                await parts_of(parts)
            engine._batcher._running = []

    run(scenario())


def test_a_model_without_steps_does_not_stream():
    async def scenario():
        async with fake_model.serving() as (engine, _):
            with pytest.raises(InvalidInputError, match="does not generate text"):
                await engine.generate(GenerationRequest("hello"))
            assert engine._admission.requests == 0

    run(scenario())


def test_a_step_that_hangs_is_told_to_the_health_check(monkeypatch):
    async def scenario():
        async with generating(request_timeout_seconds=0.01) as (engine, steps):
            monkeypatch.setattr("serve_app.engine.batch_engine.SHORTEST_STUCK_SECONDS", 0.01)
            await engine.check_health()
            assert steps.computed > 0
            steps.hold()
            generation = await engine.generate(request())
            await until(steps.started.is_set)
            await asyncio.sleep(0.03)
            with pytest.raises(Exception, match="running one batch for"):
                await engine.check_health()
            await generation.aclose()
            steps.free.set()

    run(scenario())


def test_the_double_makes_what_the_engine_takes():
    """A double of the task, so that its sequences are what the batcher asks for."""
    sequence = FakeGenerator().encode("a b", SimpleNamespace(max_new_tokens=3), None)[0]
    assert isinstance(sequence, EncodedSequence)
    assert sequence.tokens == 5
