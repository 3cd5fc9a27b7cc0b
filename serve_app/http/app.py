"""The ASGI application around routes: drops trailing slashes and answers all errors in JSON."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.http.errors import (
    MalformedBodyError,
    MethodNotAllowedError,
    Reply,
    ServingError,
    UnexpectedError,
    UnknownPathError,
)
from serve_app.http.streaming import StreamedReply, StreamedResponse

logger = logging.getLogger("ray.serve")


# What makes the reply for an error of a request to a path.
ErrorReply = Callable[[str, ServingError], Reply]


def application(routes: Sequence[Route], error_reply: ErrorReply) -> ASGIApp:
    """Return an ASGI application for `routes`; what is answered to an error is made by `error_reply`."""

    def answered(error_of: Callable[[Request, Exception], ServingError]) -> Callable[..., Any]:
        async def handler(request: Request, error: Exception) -> Response:
            return response(error_reply(request.scope["path"], error_of(request, error)))

        return handler

    app = Starlette(
        routes=routes,
        exception_handlers={
            ServingError: answered(_serving_error),
            HTTPException: answered(_http_exception),
            ClientDisconnect: answered(_client_gone),
            Exception: answered(_unexpected),
        },
    )
    app.router.redirect_slashes = False
    return _WithoutTrailingSlash(app)


def response(reply: Reply | StreamedReply) -> Response:
    if isinstance(reply, StreamedReply):
        return StreamedResponse(reply)
    return Response(reply.body, reply.status, dict(reply.headers), media_type=reply.content_type)


class _WithoutTrailingSlash:
    """Routes `/prefix`, `/prefix/` and `/prefix/path/` like `/`, `/` and `/path`.

    Starlette would answer with redirects, which clients do not follow for POST.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            prefix = scope.get("root_path", "")
            path = scope["path"].removeprefix(prefix).strip("/")
            scope = {**scope, "path": f"{prefix}/{path}"}
        await self._app(scope, receive, send)


def _serving_error(request: Request, error: Exception) -> ServingError:
    assert isinstance(error, ServingError)
    return error


def _http_exception(request: Request, error: Exception) -> ServingError:
    """Return the error for what Starlette's router raises: unknown paths and methods that are not allowed."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return MethodNotAllowedError(request.url.path, request.method, (error.headers or {}).get("Allow", ""))
    return UnknownPathError(f"there is nothing at {request.url.path}")


def _client_gone(request: Request, error: Exception) -> ServingError:
    return MalformedBodyError("the connection closed before the body was complete")


def _unexpected(request: Request, error: Exception) -> ServingError:
    logger.error("unexpected error at %s", request.url.path, exc_info=error)
    return UnexpectedError()
