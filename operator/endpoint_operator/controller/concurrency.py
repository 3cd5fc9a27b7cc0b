"""Await the same call for many items, a limited number at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def gather_limited(
    call: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int
) -> list[Result]:
    """Return the results of `call` in order, with at most `limit` calls at a time.

    The first exception is raised, but only after all calls have ended.
    """
    slots = asyncio.Semaphore(limit)

    async def limited(item: Item) -> Result:
        async with slots:
            return await call(item)

    outcomes = await asyncio.gather(*map(limited, items), return_exceptions=True)
    results: list[Result] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results
