"""The same call for many items, a limited number at a time."""

import asyncio

import pytest

from endpoint_operator.controller.concurrency import gather_limited
from tests.unit.builders import run


def test_results_come_in_order_and_no_more_run_at_a_time_than_the_limit():
    running, most = 0, 0

    async def call(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (5 - number))
        running -= 1
        return number * 2

    assert run(gather_limited(call, range(5), 2)) == [0, 2, 4, 6, 8]
    assert most == 2


def test_all_calls_end_before_an_error_is_raised():
    ended = []

    async def call(number):
        if number == 0:
            raise ValueError("no")
        await asyncio.sleep(0.001)
        ended.append(number)

    with pytest.raises(ValueError, match="no"):
        run(gather_limited(call, range(4), 2))
    assert ended == [1, 2, 3]
