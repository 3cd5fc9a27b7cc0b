"""HTTP around the protocols: read a body within its limits, answer every error in one shape."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.contract import MAX_BODY_BYTES
from serve_app.errors import (
    BODY_TIMEOUT_SECONDS,
    BodyTimeoutError,
    BodyTooLargeError,
    ClientGoneError,
    MalformedBodyError,
    MethodNotAllowedError,
    ServingError,
    UnexpectedError,
    UnknownPathError,
    UnsupportedMediaTypeError,
)
from serve_app.open_inference import BINARY_TYPE, HEADER_LENGTH
from serve_app.reply import JSON_TYPE, Reply

logger = logging.getLogger("ray.serve")

# A client that is still sending would not read our 413; up to here its body is read and dropped.
MAX_DROPPED_BYTES: Final = 64 * 1024 * 1024

# Most requests are answered by then, and never need to be watched.
WATCHED_AFTER_SECONDS: Final = 0.25


def application(routes: Sequence[Route]) -> ASGIApp:
    """Return an ASGI application for `routes` whose every error has the one JSON shape."""
    app = Starlette(
        routes=routes,
        exception_handlers={
            ServingError: _serving_error,
            HTTPException: _http_exception,
            ClientDisconnect: _client_gone,
            Exception: _unexpected,
        },
    )
    app.router.redirect_slashes = False
    return _WithoutTrailingSlash(app)


class _WithoutTrailingSlash:
    """Makes `/prefix`, `/prefix/` and `/prefix/path/` the paths `/`, `/` and `/path` of the routes.

    Starlette would answer them with redirects, which clients of POST do not follow.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            prefix = scope.get("root_path", "")
            path = scope["path"].removeprefix(prefix).strip("/")
            scope = {**scope, "path": f"{prefix}/{path}"}
        await self._app(scope, receive, send)


async def read_body(request: Request) -> bytes:
    """Return the request's body.

    Raises 413 above MAX_BODY_BYTES, 415 for a type that is neither JSON nor the binary extension's,
    408 if it does not arrive in time.
    """
    _require_media_type(request)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    chunks.append(chunk)
                elif size > MAX_DROPPED_BYTES:
                    break
    except TimeoutError as error:
        raise BodyTimeoutError from error
    if size > MAX_BODY_BYTES:
        raise BodyTooLargeError(
            f"the body is larger than {MAX_BODY_BYTES} bytes; send fewer texts in one request",
            limit=MAX_BODY_BYTES,
        )
    if not chunks:
        raise MalformedBodyError("the body is empty; send a JSON object")
    return b"".join(chunks)


@asynccontextmanager
async def while_client_waits(request: Request) -> AsyncIterator[None]:
    """End what runs within once the client has closed its connection; the body must have been read.

    Raises ClientGoneError then. Serve does the same, at the cost of two tasks for each request; our proxy
    tells it not to.
    """
    loop = asyncio.get_running_loop()
    watches: list[asyncio.Task[None]] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        waiting.reschedule(loop.time())

    timer = loop.call_later(WATCHED_AFTER_SECONDS, lambda: watches.append(loop.create_task(watch())))
    try:
        async with asyncio.timeout(None) as waiting:
            yield
    except TimeoutError as error:
        raise ClientGoneError("the client has closed its connection") from error
    finally:
        timer.cancel()
        for task in watches:
            task.cancel()


def _require_media_type(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaTypeError(f"content-encoding: got {encoding!r}; must be absent")
    stated = request.headers.get("content-type", JSON_TYPE)
    media_type = stated.partition(";")[0].strip().lower()
    if media_type == JSON_TYPE or (media_type == BINARY_TYPE and HEADER_LENGTH in request.headers):
        return
    raise UnsupportedMediaTypeError(f"content-type: got {stated!r}; must be '{JSON_TYPE}'")


async def _serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return Reply.for_error(error).response()


async def _http_exception(request: Request, error: Exception) -> Response:
    """Translate what Starlette's router raises: no such path, no such method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.url.path} does not take {request.method}; it takes {allowed}"
        response = Reply.for_error(MethodNotAllowedError(message)).response()
        response.headers["Allow"] = allowed
        return response
    return Reply.for_error(UnknownPathError(f"there is nothing at {request.url.path}")).response()


async def _client_gone(request: Request, error: Exception) -> Response:
    gone = MalformedBodyError("the connection closed before the body was complete")
    return Reply.for_error(gone).response()


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("unexpected error at %s", request.url.path, exc_info=error)
    return Reply.for_error(UnexpectedError()).response()
