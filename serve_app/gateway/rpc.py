"""The gateway's answers over gRPC: about the server, and for the models that the proxy cannot place."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.relay import Relay
from serve_app.gateway.server import EXTENSIONS, SERVER_NAME, SERVER_VERSION
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.errors import ModelNotReadyError, Reply
from serve_app.protocols.open_inference_tensors import PLATFORM, VERSION, check_version
from serve_app.rpc.messages import new, parse
from serve_app.rpc.service import rpc_reply


@dataclass(frozen=True)
class Gate:
    """What a call is answered with: the models, how they are asked, and the client's metadata."""

    index: ModelIndex
    visible: VisibleModels
    relay: Relay
    metadata: Mapping[str, str]


Answer = Callable[[Gate, bytes], Awaitable[Reply]]


async def answer_rpc(gate: Gate, method: str, request: bytes) -> Reply:
    """Return the reply to the serialized `request`; raise a ServingError if there is none."""
    return await _ANSWERS[method](gate, request)


async def _live(gate: Gate, request: bytes) -> Reply:
    return rpc_reply(new("ServerLiveResponse", live=True))


async def _ready(gate: Gate, request: bytes) -> Reply:
    # As over HTTP: one model that does not load must not take the others out of rotation.
    try:
        await gate.index.all()
    except ModelNotReadyError:
        return rpc_reply(new("ServerReadyResponse", ready=False))
    return rpc_reply(new("ServerReadyResponse", ready=True))


async def _server(gate: Gate, request: bytes) -> Reply:
    return rpc_reply(
        new("ServerMetadataResponse", name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS)
    )


async def _model_ready(gate: Gate, request: bytes) -> Reply:
    """Answer whether a model answers; an unknown one is an error, as in the protocol."""
    gate.visible.check_key(gate.metadata)
    message = parse("ModelReadyRequest", request)
    try:
        await gate.visible.resolve(gate.metadata, message.name)
    except ModelNotReadyError:
        return rpc_reply(new("ModelReadyResponse", ready=False))
    check_version(message.name, message.version)
    return rpc_reply(new("ModelReadyResponse", ready=True))


async def _model(gate: Gate, request: bytes) -> Reply:
    gate.visible.check_key(gate.metadata)
    message = parse("ModelMetadataRequest", request)
    # A model that rests is not woken up for that.
    if (await gate.visible.resolve(gate.metadata, message.name)).replicas:
        return await gate.relay.send(message.name, "ModelMetadata", request, gate.metadata)
    check_version(message.name, message.version)
    return rpc_reply(new("ModelMetadataResponse", name=message.name, versions=[VERSION], platform=PLATFORM))


async def _infer(gate: Gate, request: bytes) -> Reply:
    gate.visible.check_key(gate.metadata)
    name = parse("ModelInferRequest", request).model_name
    await gate.visible.require(gate.metadata, name)
    return await gate.relay.send(name, "ModelInfer", request, gate.metadata)


_ANSWERS: Final[Mapping[str, Answer]] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ServerMetadata": _server,
    "ModelReady": _model_ready,
    "ModelMetadata": _model,
    "ModelInfer": _infer,
}
