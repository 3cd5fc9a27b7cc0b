"""The ASGI application around routes: drops trailing slashes and answers all errors in one JSON shape."""

import logging
from collections.abc import Sequence

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

logger = logging.getLogger("ray.serve")


def application(routes: Sequence[Route]) -> ASGIApp:
    """Return an ASGI application for `routes` that answers every error in the one JSON shape."""
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


def response(reply: Reply) -> Response:
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


async def _serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return response(Reply.for_error(error))


async def _http_exception(request: Request, error: Exception) -> Response:
    """Answer what Starlette's router raises: unknown paths and methods that are not allowed."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.url.path} does not take {request.method}; it takes {allowed}"
        refusal = response(Reply.for_error(MethodNotAllowedError(message)))
        refusal.headers["Allow"] = allowed
        return refusal
    return response(Reply.for_error(UnknownPathError(f"there is nothing at {request.url.path}")))


async def _client_gone(request: Request, error: Exception) -> Response:
    gone = MalformedBodyError("the connection closed before the body was complete")
    return response(Reply.for_error(gone))


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("unexpected error at %s", request.url.path, exc_info=error)
    return response(Reply.for_error(UnexpectedError()))
