"""Open Inference Protocol v2 over gRPC: serialized messages in, serialized messages out.

Specification: https://github.com/kserve/open-inference-protocol, `inference_grpc.md`. Texts come in
`contents` or in `raw_input_contents`, and the answer has the form of the request. With numbers in half
precision it is always raw.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from pydantic_core import from_json

from serve_app.engine.base import Engine
from serve_app.http.errors import (
    InvalidInputError,
    Reply,
    UnknownModelError,
    UnknownPathError,
)
from serve_app.protocols.open_inference_tensors import (
    VERSION,
    InputColumn,
    OutputTensor,
    check_tensor,
    check_version,
    decoded,
    inputs_of,
    model_metadata,
    number_datatype,
    output_tensors,
    task_parameters,
    unpacked,
)
from serve_app.rpc.messages import PARAMETER_CHOICE, new, parse
from serve_app.rpc.service import rpc_reply
from serve_app.text import quoted

logger = logging.getLogger("ray.serve")

Answer = Callable[[Engine, bytes], Awaitable[Reply]]


async def _ready(engine: Engine, request: bytes) -> Reply:
    # Serve sends requests to a replica only after its model is loaded and has answered a first text.
    message = parse("ModelReadyRequest", request)
    _check_model(engine, message.name, message.version)
    return rpc_reply(new("ModelReadyResponse", ready=True))


async def _metadata(engine: Engine, request: bytes) -> Reply:
    message = parse("ModelMetadataRequest", request)
    _check_model(engine, message.name, message.version)
    document = model_metadata(engine)
    tensors = {
        side: [{name: tensor[name] for name in ("name", "datatype", "shape")} for tensor in document[side]]
        for side in ("inputs", "outputs")
    }
    return rpc_reply(new("ModelMetadataResponse", **{**document, **tensors}))


async def _infer(engine: Engine, body: bytes) -> Reply:
    request = parse("ModelInferRequest", body)
    _check_model(engine, request.model_name, request.model_version)
    texts = inputs_of(engine, _columns(request))
    given = _parameters(request.parameters)
    numbers = number_datatype(given)
    predictions = await engine.predict(texts, task_parameters(given))
    tensors = output_tensors(engine, predictions, [output.name for output in request.outputs], numbers)
    return rpc_reply(_response(engine, request, tensors))


def _check_model(engine: Engine, name: str, version: str) -> None:
    """Raise UnknownModelError if a request that has come here is not for this model and its version."""
    if name != engine.args.name:
        raise UnknownModelError(f"no model is named {quoted(name)}; this is {engine.args.name!r}")
    check_version(name, version)


_ANSWERS: Final[Mapping[str, Answer]] = {
    "ModelReady": _ready,
    "ModelMetadata": _metadata,
    "ModelInfer": _infer,
}


async def answer_rpc(engine: Engine, method: str, request: bytes) -> Reply:
    """Return the reply of a model to the serialized `request`; raise a ServingError if there is none."""
    if method not in _ANSWERS:
        raise UnknownPathError(f"{method}: only the gateway answers it; send no metadata `application`")
    return await _ANSWERS[method](engine, request)


def _relayed(method: str) -> Callable[[Engine, bytes, Mapping[str, str]], Awaitable[Reply]]:
    async def call(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
        return await answer_rpc(engine, method, body)

    return call


RPC_CALLS: Final = {method: _relayed(method) for method in _ANSWERS}
"""What the gateway asks of a model by Serve's handle."""


def _columns(request: Any) -> list[InputColumn]:
    """Return the input tensors; raise InvalidInputError if a tensor holds no texts."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInputError(
            f"raw_input_contents: got {len(raw)} for {len(request.inputs)} inputs; give one for each, or none"
        )
    columns = []
    for number, tensor in enumerate(request.inputs):
        where = f"inputs[{number}]"
        if raw and tensor.HasField("contents"):
            raise InvalidInputError(f"{where}.contents: must be absent, as there are raw_input_contents")
        if raw:
            texts = list(unpacked(raw[number], where))
        else:
            elements = tensor.contents.bytes_contents
            texts = [decoded(item, f"{where}: element {place}") for place, item in enumerate(elements)]
        check_tensor(where, tensor.datatype, tensor.shape, len(texts))
        columns.append(InputColumn(tensor.name, where, texts))
    return columns


def _parameters(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as values. The protocol has no lists, so a list is given as text in JSON."""
    return {name: _value(name, parameter) for name, parameter in stated.items()}


def _value(name: str, parameter: Any) -> Any:
    choice = parameter.WhichOneof(PARAMETER_CHOICE)
    if choice is None:
        raise InvalidInputError(f"parameters.{quoted(name)}: has no value")
    value = getattr(parameter, choice)
    if not isinstance(value, str) or not value.startswith("["):
        return value
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError:
        # A prefix or a template may begin with a bracket, too.
        return value


def _response(engine: Engine, request: Any, tensors: Sequence[OutputTensor]) -> Any:
    response = new("ModelInferResponse", model_name=engine.args.name, model_version=VERSION, id=request.id)
    # An answer is raw as a whole or not at all.
    raw = bool(request.raw_input_contents) or any(tensor.only_binary for tensor in tensors)
    for tensor in tensors:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if raw:
            response.raw_output_contents.append(tensor.packed())
        elif tensor.datatype == "FP32":
            output.contents.fp32_contents.extend(tensor.elements)
        elif tensor.datatype == "INT64":
            output.contents.int64_contents.extend(tensor.elements)
        else:
            output.contents.bytes_contents.extend(text.encode() for text in tensor.elements)
    return response
