"""The protocols' one table, and the replica's routes that are made from it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serve_app.access.folder import AccessFolder
from serve_app.access.front import Arrival, Front
from serve_app.engine.base import Engine
from serve_app.engine.records import Observers, RequestRecord, Transport
from serve_app.http.app import application, response
from serve_app.http.body import MediaTypes, read_body
from serve_app.http.disconnect import cancel_on_disconnect
from serve_app.http.errors import JSON_TYPE, Reply, ServingError
from serve_app.http.shapes import error_reply
from serve_app.http.streaming import StreamedReply
from serve_app.protocols.generation.chat_completions import CHAT_COMPLETIONS, chat_completions
from serve_app.protocols.generation.completions import COMPLETIONS, completions
from serve_app.protocols.generation.text_generation_inference import GENERATE, GENERATE_STREAM
from serve_app.protocols.generation.triton_generate import generate, generate_stream
from serve_app.protocols.hugging_face import inference
from serve_app.protocols.kserve_v1 import V1_PREDICT, v1_predict
from serve_app.protocols.open_inference import BINARY_TYPE, HEADER_LENGTH, infer, metadata
from serve_app.protocols.open_inference_rpc import RPC_CALLS
from serve_app.protocols.openai_embeddings import embeddings
from serve_app.protocols.predict import predict
from serve_app.protocols.rerank import rerank
from serve_app.protocols.tei import classify, embed, info, is_classify_request
from serve_app.protocols.versions import version_routes
from serve_app.rpc.service import rpc_error

Verb = Callable[[Engine, bytes, Mapping[str, str]], Awaitable[Reply | StreamedReply]]


async def _predict(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    # Text Embeddings Inference has the same path for another request.
    if is_classify_request(body):
        return await classify(engine, body)
    return await predict(engine, body, headers)


VERBS: Final[Mapping[str, Verb]] = {
    "": inference,
    "predict": _predict,
    "infer": infer,
    "embed": embed,
    "rerank": rerank,
    "v1/rerank": rerank,
    "v2/rerank": rerank,
    "v1/embeddings": embeddings,
    V1_PREDICT: v1_predict,
    CHAT_COMPLETIONS: chat_completions,
    COMPLETIONS: completions,
    GENERATE: generate,
    GENERATE_STREAM: generate_stream,
}
"""The requests with a body that a model answers, by their path below that of the model."""

_STREAMING: Final = frozenset({CHAT_COMPLETIONS, COMPLETIONS, GENERATE, GENERATE_STREAM})


def may_stream(verb: str, body: bytes) -> bool:
    """Return whether the answer may be a StreamedReply."""
    return verb in _STREAMING or (verb == "" and b'"stream"' in body)


METADATA: Final = "metadata"
INFO: Final = "info"


async def _metadata(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    # For a large process, Linux takes several milliseconds to add up its memory.
    return await asyncio.to_thread(metadata, engine)


async def _info(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    return info(engine)


CALLS: Final[Mapping[str, Verb]] = {**VERBS, METADATA: _metadata, INFO: _info, **RPC_CALLS}
"""What the gateway asks of a model by Serve's handle."""


def error_reply_to_call(verb: str, error: ServingError) -> Reply:
    """Return the reply for an error of one of CALLS, which the gateway relays."""
    return rpc_error(error) if verb in RPC_CALLS else error_reply(verb, error)


MEDIA_TYPES: Final[MediaTypes] = {JSON_TYPE: None, BINARY_TYPE: HEADER_LENGTH}
"""The media types of their bodies, each with the header that it requires."""


def model_application(engine: Engine, front: Front | None = None) -> ASGIApp:
    """Return the ASGI application of `engine`'s model behind `front`; paths are below its route prefix.

    Without a front, everybody may ask.
    """
    front = front or Front(engine.args.name, AccessFolder(None), Observers())

    def route_of(path: str, verb: Verb) -> Route:
        async def call(request: Request) -> Response:
            async def work(record: RequestRecord) -> Reply | StreamedReply:
                record.body = await read_body(request, MEDIA_TYPES)
                async with cancel_on_disconnect(request):
                    return await verb(engine, record.body, request.headers)

            return response(await front.answer(Arrival(path, Transport.HTTP, request.headers), work))

        return Route(f"/{path}", call, methods=["POST"])

    async def describe(request: Request) -> Response:
        return response(await _metadata(engine, b"", {}))

    async def about(request: Request) -> Response:
        return response(info(engine))

    async def ready(request: Request) -> Response:
        # Serve sends requests to a replica only after its model is loaded and has answered a first text.
        return Response(to_json({"name": engine.args.name, "ready": True}), media_type=JSON_TYPE)

    queries = [
        Route("/", describe, methods=["GET"]),
        Route("/info", about, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
    ]
    verbs = [route_of(path, verb) for path, verb in VERBS.items()]
    versions = version_routes([*queries, *verbs], name=engine.args.name)
    guarded = [_guarded(route, front) for route in (*queries, *versions)]
    return application([*guarded, *verbs], error_reply)


def _guarded(route: Route, front: Front) -> Route:
    """Return the route, which answers only those who may ask this model."""

    async def handle(request: Request) -> Response:
        front.caller_of(request.headers)
        answer: Response = await route.endpoint(request)
        return answer

    return Route(route.path, handle, methods=list(route.methods or ()))
