"""Do the same to many things at once, but not to all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def few_at_a_time(
    deed: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int
) -> list[Result]:
    """Return the results in order; all is done before the first error, if there is one, is raised."""
    places = asyncio.Semaphore(limit)

    async def placed(item: Item) -> Result:
        async with places:
            return await deed(item)

    outcomes = await asyncio.gather(*map(placed, items), return_exceptions=True)
    results: list[Result] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results
