"""The gateway's answers over gRPC: about the server, and for the models that the proxy cannot place."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.relay import Relay
from serve_app.gateway.server import EXTENSIONS, SERVER_NAME, SERVER_VERSION
from serve_app.http.errors import ModelNotReadyError, Reply
from serve_app.protocols.open_inference_tensors import PLATFORM, VERSION, check_version
from serve_app.rpc.messages import new, parse
from serve_app.rpc.service import rpc_reply

Answer = Callable[[ModelIndex, Relay, bytes], Awaitable[Reply]]


async def answer_rpc(index: ModelIndex, relay: Relay, method: str, request: bytes) -> Reply:
    """Return the reply to the serialized `request`; raise a ServingError if there is none."""
    return await _ANSWERS[method](index, relay, request)


async def _live(index: ModelIndex, relay: Relay, request: bytes) -> Reply:
    return rpc_reply(new("ServerLiveResponse", live=True))


async def _ready(index: ModelIndex, relay: Relay, request: bytes) -> Reply:
    # As over HTTP: one model that does not load must not take the others out of rotation.
    try:
        await index.all()
    except ModelNotReadyError:
        return rpc_reply(new("ServerReadyResponse", ready=False))
    return rpc_reply(new("ServerReadyResponse", ready=True))


async def _server(index: ModelIndex, relay: Relay, request: bytes) -> Reply:
    return rpc_reply(
        new("ServerMetadataResponse", name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS)
    )


async def _model_ready(index: ModelIndex, relay: Relay, request: bytes) -> Reply:
    """Answer whether a model answers; an unknown one is an error, as in the protocol."""
    message = parse("ModelReadyRequest", request)
    try:
        await index.resolve(message.name)
    except ModelNotReadyError:
        return rpc_reply(new("ModelReadyResponse", ready=False))
    check_version(message.name, message.version)
    return rpc_reply(new("ModelReadyResponse", ready=True))


async def _model(index: ModelIndex, relay: Relay, request: bytes) -> Reply:
    message = parse("ModelMetadataRequest", request)
    # A model that rests is not woken up for that.
    if (await index.resolve(message.name)).replicas:
        return await relay.send(message.name, "ModelMetadata", request, {})
    check_version(message.name, message.version)
    return rpc_reply(new("ModelMetadataResponse", name=message.name, versions=[VERSION], platform=PLATFORM))


async def _infer(index: ModelIndex, relay: Relay, request: bytes) -> Reply:
    return await relay.send(parse("ModelInferRequest", request).model_name, "ModelInfer", request, {})


_ANSWERS: Final[Mapping[str, Answer]] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ServerMetadata": _server,
    "ModelReady": _model_ready,
    "ModelMetadata": _model,
    "ModelInfer": _infer,
}
