"""Sequences that join and leave the batch at every step, on a model whose answers depend on all before."""

import asyncio
import random

import pytest

from serve_app.engine.continuous import batcher as continuous_batcher
from serve_app.engine.generation import FinishReason
from tests.harness.builders import run, until
from tests.unit.fake_steps import BAD, alone, batching, continuation, free_after, held, limits, text_of, told


def a_prompt(rng, common):
    """Return a prompt that begins like others, or has one token only."""
    if rng.random() < 0.1:
        return [rng.randrange(100)]
    return [*common[: rng.randrange(len(common))], *(rng.randrange(100) for _ in range(rng.randrange(1, 30)))]


def a_continuation(rng, common):
    options = {}
    if rng.random() < 0.4:
        options["stops"] = tuple(text_of(rng.choices(range(100), k=rng.randrange(1, 3))) for _ in range(2))
    if rng.random() < 0.4:
        options["ends"] = frozenset(rng.sample(range(20), 2))
    if rng.random() < 0.4:
        options["seed"] = rng.randrange(1000)
    return continuation(a_prompt(rng, common), rng.randrange(1, 25), **options)


async def client(batcher, rng, common, seen):
    """Ask after a while for one or several, streamed or not, and stay to the end or not."""
    for _ in range(rng.randrange(60)):
        await asyncio.sleep(0)
    wanted = [a_continuation(rng, common) for _ in range(rng.choice([1, 1, 2, 5]))]
    if rng.random() < 0.4:
        asked = wanted[0]
        request = batcher.stream(asked)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() * 0.01)
            request.answer.cancel()
            return
        grown = await told(request)
        right = alone(asked)
        assert [each.choice.token for each in grown] == right.tokens
        if asked.stops:
            assert "".join(each.text for each in grown) == right.text
        assert [each.reason for each in grown] == [None] * (len(grown) - 1) + [right.reason]
        assert await request.answer == [right]
    elif rng.random() < 0.3:
        task = asyncio.create_task(batcher.submit(wanted))
        await asyncio.sleep(rng.random() * 0.01)
        task.cancel()
        return
    else:
        assert await batcher.submit(wanted) == [alone(each) for each in wanted]
    seen.append(len(wanted))


@pytest.mark.parametrize("seed", range(25))
def test_each_answer_is_that_of_the_model_alone(seed, monkeypatch):
    monkeypatch.setattr(continuous_batcher, "_WORTH_RELEASING", 1)
    rng = random.Random(seed)
    common = [rng.randrange(100) for _ in range(60)]
    max_size, max_tokens = rng.choice([1, 3, 8, 16]), rng.choice([1, 150, 400, 10_000])

    async def scenario():
        async with batching(max_size, max_tokens) as (batcher, steps):

            def watch(rows):
                running = [each.continuation.tokens for each in batcher._running]
                steps.require(len(rows) <= len(running) <= max_size, "too many sequences")
                steps.require(len(running) == 1 or sum(running) <= max_tokens, "too many tokens")
                # A token that was computed for a sequence that had ended already is not counted.
                memory = sum(steps.memory.values()) - len(steps.memory)
                steps.require(len(running) == 1 or memory <= max_tokens, "too many tokens are kept")

            steps.before = watch
            seen = []
            clients = [client(batcher, random.Random(rng.random()), common, seen) for _ in range(12)]
            await asyncio.gather(*clients)
            assert sum(seen) >= 3
            await until(lambda: not batcher.busy)
            assert steps.faults == []

    run(scenario())


def test_one_that_is_larger_than_the_budget_gets_in_alone():
    async def scenario():
        async with batching(max_tokens=20) as (batcher, steps):
            asked = [continuation([number] * size, 3) for number, size in enumerate((50, 5, 5, 60))]
            got = await asyncio.gather(*(batcher.submit([each]) for each in asked))
            assert got == [[alone(each)] for each in asked]
            assert [len(step) for step in steps.steps] == [1] * 3 + [2] * 3 + [1] * 3

    run(scenario())


def test_a_request_of_many_does_not_hold_up_a_small_one():
    async def scenario():
        async with batching(max_size=4) as (batcher, steps):
            many = [continuation([number, 1, 2], 4) for number in range(100)]
            [large] = await held(batcher, steps, many)
            small = asyncio.create_task(batcher.submit([continuation([500], 4)]))
            await free_after(steps)
            await small
            assert len(steps.steps) <= 4 + 4 + 2
            assert not large.done()
            assert await large == [alone(each) for each in many]

    run(scenario())


def test_nobody_in_the_queue_is_overtaken_for_ever_by_smaller_ones():
    async def scenario():
        async with batching(max_size=4, max_tokens=40) as (batcher, steps):
            small = [continuation([number, 1], 8) for number in range(40)]
            tasks = await held(batcher, steps, *[[each] for each in small[:6]])
            large = asyncio.create_task(batcher.submit([continuation([7] * 30, 8)]))
            await asyncio.sleep(0)
            tasks += [asyncio.create_task(batcher.submit([each])) for each in small[6:]]
            await free_after(steps)
            await large
            assert sum(task.done() for task in tasks) <= 8
            await asyncio.gather(*tasks)

    run(scenario())


def test_what_prompts_have_in_common_is_computed_once():
    async def scenario():
        async with batching(max_size=16) as (batcher, steps):
            common = [*range(100)]
            asked = [continuation([*common, number, 2, 3, 4, 5], 4) for number in range(200, 210)]
            got = await asyncio.gather(*(batcher.submit([each]) for each in asked))
            assert got == [[alone(each)] for each in asked]
            # The common part, the rest of each prompt, and what is generated but its last token.
            assert steps.computed == 100 + 10 * 5 + 10 * 3
            assert len(steps.copied) == 9

    run(scenario())


def test_a_conversation_goes_on_where_it_was():
    async def scenario():
        async with batching() as (batcher, steps):
            first = continuation([*range(50)], 10)
            [said] = await batcher.submit([first])
            before = steps.computed
            assert before == 50 + 9
            second = continuation([*first.prompt, *said.tokens, 7, 8], 3)
            assert await batcher.submit([second]) == [alone(second)]
            # The last token had been chosen, and was not computed.
            assert steps.computed - before == 3 + 2
            assert steps.copied == []

    run(scenario())


@pytest.mark.parametrize(("common", "left"), [(0, 0), (20, 31)])
def test_a_short_one_gives_back_the_memory_of_a_long_one_in_its_place(common, left):
    async def scenario():
        async with batching(max_size=1) as (batcher, steps):
            long = continuation(range(300), 4)
            await batcher.submit([long])
            short = continuation([*range(common), *range(500, 508)], 4)
            assert await batcher.submit([short]) == [alone(short)]
            await until(lambda: steps.memory == {0: left})

    run(scenario())


@pytest.mark.parametrize("pace", [1, 7])
def test_prompts_are_computed_in_pieces_beside_those_that_run(pace):
    async def scenario():
        async with batching() as (batcher, steps):
            batcher._pace.piece_tokens = lambda generating: pace
            tasks = await held(batcher, steps, [continuation([1], 60)])
            tasks += [asyncio.create_task(batcher.submit([continuation([9, 8] * 20, 5)])) for _ in range(2)]
            await free_after(steps)
            await asyncio.gather(*tasks)
            # The first one has a token in each step until it is over.
            assert all((0, step, 1, True) in rows for step, rows in enumerate(steps.steps[:60]))
            counts = [[count for _, _, count, chooses in rows if not chooses] for rows in steps.steps]
            assert max(map(sum, counts)) <= pace
            assert sum(map(sum, counts)) >= 35

    run(scenario())


def test_a_stop_text_ends_a_sequence_before_it():
    async def scenario():
        async with batching() as (batcher, steps):
            new = alone(continuation([1, 2], 12)).tokens
            stop = text_of(new[4:6])
            [got] = await batcher.submit([continuation([1, 2], 12, stops=("zzz", stop))])
            assert (got.text, got.reason) == (text_of(new[:4]), FinishReason.STOP)
            assert got.tokens == new[:6]
            # It is found while the next step runs, and that is the last one.
            assert len(steps.steps) <= 7

    run(scenario())


def test_a_token_that_ends_a_text_is_the_last_one():
    async def scenario():
        async with batching() as (batcher, steps):
            new = alone(continuation([1, 2], 12)).tokens
            ends = frozenset([new[3]])
            got = await batcher.submit([continuation([1, 2], 12, ends=ends)])
            assert got == [alone(continuation([1, 2], 12, ends=ends))]
            assert len(steps.steps) == len(got[0].tokens)

    run(scenario())


def test_samples_repeat_whoever_shares_the_batch():
    async def scenario():
        asked = continuation([*range(30)], 20, seed=5)
        async with batching() as (batcher, _):
            [by_itself] = await batcher.submit([asked])
        async with batching() as (batcher, steps):
            others = await held(batcher, steps, [continuation([*range(25)], 30, seed=6)])
            shared = asyncio.create_task(batcher.submit([asked, asked]))
            failing = asyncio.create_task(batcher.submit([continuation([BAD], 3)]))
            await free_after(steps)
            assert await shared == [by_itself] * 2 == [alone(asked)] * 2
            await asyncio.gather(*others, failing, return_exceptions=True)
            [other] = await batcher.submit([continuation([*range(30)], 20, seed=7)])
            assert other != by_itself

    run(scenario())


def test_limits_may_change_while_sequences_run():
    async def scenario():
        async with batching(max_size=8) as (batcher, steps):
            asked = [continuation([number], 12) for number in range(20)]
            tasks = await held(batcher, steps, *[[each] for each in asked])
            batcher.limits = limits(max_size=2)
            await free_after(steps)
            assert await asyncio.gather(*tasks) == [[alone(each)] for each in asked]
            sizes = [len(step) for step in steps.steps]
            assert sizes[:12] == [8] * 12
            assert set(sizes[12:]) == {2}
            batcher.limits = limits(max_size=20)
            await asyncio.gather(*(batcher.submit([each]) for each in asked))
            assert max(len(step) for step in steps.steps) == 20

    run(scenario())
