"""Cancel the work for clients that close their connection before they have got all of the response."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request
from starlette.types import Receive

from serve_app.http.errors import ClientGoneError

# Most requests are answered by then, so that their connection is never watched.
WATCHED_AFTER_SECONDS: Final = 0.25


@asynccontextmanager
async def cancel_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancel the block and raise ClientGoneError when the client disconnects; the body must have been read.

    Serve does the same with two tasks for each request, so our HAProxy rules switch that off.
    """
    async with cancel_when_gone(request.receive, WATCHED_AFTER_SECONDS):
        yield


@asynccontextmanager
async def cancel_when_gone(receive: Receive, after_seconds: float = 0) -> AsyncIterator[None]:
    """Do so for the client of `receive`, and watch it after so many seconds."""
    loop = asyncio.get_running_loop()
    watches: list[asyncio.Task[None]] = []

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        waiting.reschedule(loop.time())

    timer = loop.call_later(after_seconds, lambda: watches.append(loop.create_task(watch())))
    try:
        async with asyncio.timeout(None) as waiting:
            yield
    except TimeoutError as error:
        raise ClientGoneError("the client has closed its connection") from error
    finally:
        timer.cancel()
        for task in watches:
            task.cancel()
