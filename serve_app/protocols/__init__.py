"""The routes of one model: predict, Open Inference Protocol, readiness. Wiring, no decisions."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serve_app.engine.base import Engine
from serve_app.http.app import application, response
from serve_app.http.body import MediaTypes, read_body
from serve_app.http.disconnect import cancel_on_disconnect
from serve_app.http.errors import JSON_TYPE, Reply
from serve_app.protocols.open_inference import BINARY_TYPE, HEADER_LENGTH, infer, metadata
from serve_app.protocols.predict import predict

Verb = Callable[[Engine, bytes, Mapping[str, str]], Awaitable[Reply]]


async def _predict(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    return await predict(engine, body)


VERBS: Final[Mapping[str, Verb]] = {"predict": _predict, "infer": infer}
"""What can be asked of a model with a body, by the last part of the path."""


MEDIA_TYPES: Final[MediaTypes] = {JSON_TYPE: None, BINARY_TYPE: HEADER_LENGTH}
"""What the bodies of these may be, each type with the header that must come with it."""


def verb_of(request: Request) -> str:
    """Return the last part of the path, which has no slash at its end here (`http.app`)."""
    path: str = request.scope["path"]
    return path.rpartition("/")[2]


def model_application(engine: Engine) -> ASGIApp:
    """Return the ASGI application that answers for `engine`'s model below its route prefix."""

    async def call(request: Request) -> Response:
        body = await read_body(request, MEDIA_TYPES)
        verb = VERBS[verb_of(request)]
        async with cancel_on_disconnect(request):
            reply = await verb(engine, body, request.headers)
        return response(reply)

    async def describe(request: Request) -> Response:
        # Linux adds up the memory of a large process for several milliseconds.
        return response(await asyncio.to_thread(metadata, engine))

    async def ready(request: Request) -> Response:
        # A replica gets requests only once its model is loaded and has answered a first text.
        return Response(to_json({"name": engine.args.name, "ready": True}), media_type=JSON_TYPE)

    return application(
        [
            Route("/", describe, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
            *(Route(f"/{verb}", call, methods=["POST"]) for verb in VERBS),
        ]
    )
