"""Failures in the batch, clients that leave, and the end of it all."""

import asyncio

import pytest

from serve_app.engine.base import NotFiniteError
from tests.harness.builders import run, until
from tests.unit.fake_steps import BAD, alone, batching, continuation, free_after, held, text_of, told


def test_a_client_that_leaves_frees_its_place_at_the_next_step():
    async def scenario():
        async with batching(max_size=2) as (batcher, steps):
            asked = [continuation([number], 50) for number in range(3)]
            gone, stays, waits = await held(batcher, steps, *[[each] for each in asked])
            assert len(steps.steps) == 0
            gone.cancel()
            await free_after(steps)
            assert await waits == [alone(asked[2])]
            first, second, *_ = steps.steps
            assert [begin for _, begin, _, _ in first] == [0, 0]
            assert [begin for _, begin, _, _ in second] == [1, 0]
            assert await stays == [alone(asked[1])]

    run(scenario())


def test_what_is_computed_for_a_client_that_has_left_is_kept_and_counted():
    async def scenario():
        async with batching() as (batcher, steps):
            prompt = [*range(100)]
            [gone] = await held(batcher, steps, [continuation(prompt, 5)])
            gone.cancel()
            await free_after(steps)
            await until(lambda: not batcher.busy)
            assert batcher._places.kept_tokens == steps.memory[0] == 100
            again = continuation([*prompt, 7], 3)
            assert await batcher.submit([again]) == [alone(again)]
            assert steps.computed == 100 + 1 + 2

    run(scenario())


def test_a_client_that_leaves_the_queue_is_never_computed():
    async def scenario():
        async with batching(max_size=1) as (batcher, steps):
            first, gone = await held(batcher, steps, [continuation([1], 3)], [continuation([2], 3)])
            gone.cancel()
            await free_after(steps)
            await first
            await batcher.submit([continuation([3], 3)])
            assert steps.computed == 6

    run(scenario())


@pytest.mark.parametrize("error", [RuntimeError("no such index"), NotFiniteError()])
def test_a_row_that_fails_fails_only_its_request(error):
    async def scenario():
        async with batching(error=error) as (batcher, steps):
            good = [continuation([number] * 20, 9) for number in range(4)]
            bad = batcher.stream(continuation([5, BAD], 9))
            tasks = await held(batcher, steps, *[[each] for each in good[:3]])
            failing = asyncio.create_task(batcher.submit([good[3], continuation([1, 2, BAD], 9)]))
            await free_after(steps)
            assert await asyncio.gather(*tasks) == [[alone(each)] for each in good[:3]]
            with pytest.raises(type(error), match=str(error)):
                await failing
            with pytest.raises(type(error), match=str(error)):
                await told(bad)
            await until(lambda: not batcher.busy)
            assert await batcher.submit([good[3]]) == [alone(good[3])]

    run(scenario())


def test_a_row_that_fails_leaves_nothing_in_its_place():
    """What it has computed may be no numbers."""

    async def scenario():
        async with batching() as (batcher, steps):
            with pytest.raises(RuntimeError):
                await batcher.submit([continuation([*[1] * 600, BAD], 9)])
            assert steps.computed == 2 * 601 - 512
            await until(lambda: not batcher.busy)
            assert sum(steps.memory.values()) == 0

    run(scenario())


def test_a_text_that_cannot_be_made_fails_only_its_request():
    """Where a model has more tokens than its tokenizer, some raise."""

    def decode(ids):
        if ids[0] == 99:
            raise OverflowError("no such token")
        return text_of(ids)

    async def scenario():
        async with batching() as (batcher, steps):
            good, bad = continuation([1], 9, stops=("zz",)), continuation([99], 9, stops=("zz",))
            object.__setattr__(bad, "decode", decode)
            tasks = await held(batcher, steps, [good], [bad])
            stream = batcher.stream(bad)
            await free_after(steps)
            assert await tasks[0] == [alone(good)]
            with pytest.raises(OverflowError, match="no such token"):
                await tasks[1]
            with pytest.raises(OverflowError, match="no such token"):
                await told(stream)
            await until(lambda: not batcher.busy)

    run(scenario())


@pytest.mark.parametrize("choices", [[], None])
def test_a_model_that_returns_the_wrong_choices_fails_and_the_batcher_goes_on(choices):
    async def scenario():
        async with batching() as (batcher, steps):
            right, steps.step = steps.step, lambda rows: choices
            with pytest.raises((ValueError, TypeError)):
                await batcher.submit([continuation([1]), continuation([2])])
            await until(lambda: not batcher.busy)
            steps.step = right
            assert await batcher.submit([continuation([3])]) == [alone(continuation([3]))]

    run(scenario())


def test_a_step_that_hangs_is_no_progress():
    async def scenario():
        async with batching() as (batcher, steps):
            assert batcher.seconds_without_progress() == 0
            [task] = await held(batcher, steps, [continuation([1])])
            await asyncio.sleep(0.02)
            assert batcher.busy
            assert batcher.seconds_without_progress() >= 0.02
            steps.free.set()
            await task
            await until(lambda: not batcher.busy)
            assert batcher.seconds_without_progress() == 0

    run(scenario())


def test_nothing_to_continue_is_answered_with_nothing():
    async def scenario():
        async with batching() as (batcher, _):
            assert await batcher.submit([]) == []

    run(scenario())


def test_a_cache_that_fails_fails_what_runs_and_the_batcher_goes_on(caplog):
    async def scenario():
        async with batching() as (batcher, steps):

            def failing(*arguments):
                raise MemoryError("no room")

            copy, steps.copy = steps.copy, failing
            asked = [continuation([*range(50), number], 4) for number in range(2)]
            running = await held(batcher, steps, [asked[0]])
            running.append(asyncio.create_task(batcher.submit([asked[1]])))
            await free_after(steps)
            for task in running:
                with pytest.raises(MemoryError, match="no room"):
                    await task
            steps.copy = copy
            assert await batcher.submit(asked) == [alone(each) for each in asked]

    run(scenario())


def test_streams_end_with_an_error_where_the_replica_stops_those_in_the_queue_too():
    async def scenario():
        async with batching(max_size=2) as (batcher, steps):
            [task] = await held(batcher, steps, [continuation([1], 9)])
            streams = [batcher.stream(continuation([number], 50)) for number in range(3)]
            batcher.end_streams(RuntimeError("it ends"))
            steps.free.set()
            for each in streams:
                with pytest.raises(RuntimeError, match="it ends"):
                    await told(each)
            assert await task == [alone(continuation([1], 9))]

    run(scenario())


def test_closing_cancels_whoever_waits():
    async def scenario():
        async with batching(max_size=2) as (batcher, steps):
            tasks = await held(batcher, steps, *[[continuation([number], 50)] for number in range(4)])
            await batcher.close()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)

    run(scenario())


def test_one_whose_last_token_is_chosen_is_not_forgotten_when_the_batcher_closes():
    """Its text is made beside the next step, and the batcher closes before that."""

    async def scenario():
        for turns in range(12):
            async with batching() as (batcher, steps):
                task = asyncio.create_task(batcher.submit([continuation([1], 1)]))
                await until(lambda steps=steps: steps.steps)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await batcher.close()
                await asyncio.wait([task], timeout=1)
                assert task.done(), turns

    run(scenario())


def test_requests_whose_clients_have_gone_do_not_pile_up_while_the_batch_is_full():
    async def scenario():
        async with batching(max_size=1) as (batcher, steps):
            [first] = await held(batcher, steps, [continuation([1], 30)])
            for number in range(50):
                batcher.stream(continuation([number], 3)).answer.cancel()
            await free_after(steps, 0)
            await until(lambda: len(steps.steps) > 3)
            assert not first.done()
            assert len(batcher._queue.requests) == 0
            await first

    run(scenario())


def test_the_token_that_ends_a_text_is_no_part_of_what_is_streamed():
    async def scenario():
        async with batching() as (batcher, _):
            last = alone(continuation([1, 2], 6)).tokens[3]
            asked = continuation([1, 2], 6, ends=frozenset([last]))
            grown = await told(batcher.stream(asked))
            tokens = [each.choice.token for each in grown]
            assert tokens[-1] == last
            assert "".join(each.text for each in grown) == text_of(tokens[:-1])

    run(scenario())


def test_a_seed_and_its_negative_are_two():
    async def scenario():
        async with batching() as (batcher, _):
            one, other = await batcher.submit([continuation([1], 20, seed=seed) for seed in (1, -1)])
            assert one.tokens != other.tokens

    run(scenario())
