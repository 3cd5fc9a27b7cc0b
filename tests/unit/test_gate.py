"""Writes pass only while the gate is open, end in time, and are waited for at the end."""

import asyncio

import pytest

from endpoint_operator.kube.errors import KubeError, api_errors
from endpoint_operator.kube.gate import WriteGate, WritesEndedError
from tests.harness.builders import run


@pytest.fixture
def clock():
    return [100.0]


@pytest.fixture
def gate(clock):
    return WriteGate(lambda: clock[0])


async def write(gate, seconds=0.0):
    async with gate.write():
        await asyncio.sleep(seconds)


def test_nothing_passes_before_it_is_opened_and_after_it_is_closed(gate):
    async def story():
        with pytest.raises(WritesEndedError):
            await write(gate)
        gate.open()
        await write(gate)
        gate.close()
        with pytest.raises(WritesEndedError):
            await write(gate)

    run(story())


def test_nothing_begins_when_the_time_is_over(gate, clock):
    async def story():
        gate.open(110, 112)
        clock[0] = 109.9
        await write(gate)
        clock[0] = 110
        with pytest.raises(WritesEndedError):
            await write(gate)
        gate.open(120, 122)
        await write(gate)

    run(story())


def test_a_write_that_hangs_is_given_up_before_somebody_else_may_write(gate, clock):
    async def story():
        gate.open(110, 100.05)
        with pytest.raises(KubeError, match="no answer in time"), api_errors("write it"):
            await write(gate, 60)
        await gate.drain(0)
        assert gate.is_drained

    run(story())


def test_what_is_under_way_is_waited_for(gate):
    async def story():
        gate.open()
        under_way = asyncio.create_task(write(gate, 0.05))
        await asyncio.sleep(0)
        assert not gate.is_drained
        await gate.drain(10)
        assert gate.is_drained
        assert under_way.done()
        with pytest.raises(WritesEndedError):
            await write(gate)

    run(story())


def test_what_does_not_end_is_remembered(gate):
    async def story():
        gate.open()
        under_way = asyncio.create_task(write(gate, 60))
        await asyncio.sleep(0)
        await gate.drain(0.01)
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)
        await gate.drain(0.01)
        assert not gate.is_drained

    run(story())
