"""A burst of triggers counts once, and one without an end is cut off."""

import asyncio

from endpoint_operator.controller.debounce import Debouncer
from tests.unit.builders import run


def test_a_burst_of_triggers_counts_once():
    async def burst():
        debouncer = Debouncer(quiet_seconds=0.5, limit_seconds=60)
        debouncer.trigger()
        waiting = asyncio.ensure_future(debouncer.wait(10))
        for _ in range(10):
            await asyncio.sleep(0.005)
            debouncer.trigger()
        assert not waiting.done()
        await waiting
        return await debouncer.wait(0.01)

    assert run(burst()) is False


def test_triggers_that_never_stop_end_the_wait_in_the_end():
    async def storm():
        debouncer = Debouncer(quiet_seconds=0.1, limit_seconds=0.05)
        waiting = asyncio.ensure_future(debouncer.wait(10))
        while not waiting.done():
            debouncer.trigger()
            await asyncio.sleep(0.001)
        return await waiting

    assert run(storm()) is True
