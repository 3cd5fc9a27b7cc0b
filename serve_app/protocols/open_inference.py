"""Open Inference Protocol v2 over HTTP, with Triton's binary tensor extension, which its clients use.

Specifications: the "Open Inference Protocol" REST API, and Triton's "Binary Data Extension" for
`Inference-Header-Content-Length`. In binary form, a BYTES element is a little-endian uint32 length followed
by the bytes.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from serve_app.engine.base import Engine, Output, Prediction
from serve_app.http.errors import JSON_TYPE, InvalidInputError, MalformedBodyError, Reply
from serve_app.protocols.predict import raise_for_body
from serve_app.telemetry.memory import memory_of_this_process
from serve_app.text import quoted, shortened

HEADER_LENGTH: Final = "inference-header-content-length"
BINARY_TYPE: Final = "application/octet-stream"

# Request parameters of the protocol and of Triton's extensions. All others are parameters of the task.
_PROTOCOL_PARAMETERS: Final = frozenset(
    {"binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"}
)

_LENGTH: Final = struct.Struct("<I")
# How numpy names the numbers of binary tensors.
_NUMBERS: Final = {"FP32": "<f4", "INT64": "<i8"}


class _Message(BaseModel):
    """Strict about types. Unknown members are extensions of clients and are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class TensorParameters(_Message):
    """`binary_data_size` is the number of bytes of a tensor that follows the JSON."""

    binary_data_size: int | None = Field(default=None, ge=0)


class InputTensor(_Message):
    """One input, with its data in the JSON or behind it."""

    name: str
    datatype: str
    shape: list[int] = Field(min_length=1, max_length=8)
    parameters: TensorParameters = TensorParameters()
    data: list[Any] | None = None


class OutputParameters(_Message):
    """The form in which the client wants one output."""

    binary_data: bool = False


class RequestedOutput(_Message):
    """One output that the client asks for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferRequest(_Message):
    """The JSON part of a request."""

    id: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[RequestedOutput] = Field(default_factory=list)


async def infer(engine: Engine, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Answer an inference request. The names of `headers` are in lower case."""
    json_part, binary_part = _split(body, headers.get(HEADER_LENGTH))
    try:
        request = InferRequest.model_validate_json(json_part)
    except ValidationError as error:
        raise_for_body(error)
    texts = _texts(request.inputs, binary_part)
    overrides = {
        name: value for name, value in request.parameters.items() if name not in _PROTOCOL_PARAMETERS
    }
    predictions = await engine.predict(texts, overrides)
    return _answer(engine, request, predictions)


def metadata(engine: Engine) -> Reply:
    """Return the model's metadata: its tensors, and under `parameters` how the model runs here."""
    outputs = [
        {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        for output in engine.model.outputs
    ]
    limit = engine.input_limit
    facts = {
        "task": engine.args.task,
        "uri": engine.args.uri,
        "revision": engine.args.revision,
        "commit": engine.commit,
        "max_input_tokens": limit.max_tokens,
        "truncate_input": limit.truncate,
        **engine.model.description,
        "cold_start": engine.cold_start,
        "memory": memory_of_this_process(),
    }
    document = {
        "name": engine.args.name,
        "versions": [],
        "platform": "transformers",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
        "parameters": facts,
    }
    return Reply(to_json(document), JSON_TYPE)


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """Return the JSON part and the binary part behind it."""
    if header_length is None:
        return body, memoryview(b"")
    # A longer number is no length, and Python refuses to parse thousands of digits.
    digits = header_length.isdecimal() and len(header_length) < 20
    if not digits or int(header_length) > len(body):
        raise MalformedBodyError(
            f"Inference-Header-Content-Length: got {quoted(header_length)}; must be a number of bytes up to "
            f"the body's {len(body)}"
        )
    return body[: int(header_length)], memoryview(body)[int(header_length) :]


def _texts(inputs: Sequence[InputTensor], binary_part: memoryview) -> list[str]:
    """Return the texts of the one input tensor."""
    if len(inputs) > 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise InvalidInputError(f"inputs: got {shortened(names)}; this model takes one input, 'text'")
    tensor = inputs[0]
    if tensor.datatype != "BYTES":
        raise InvalidInputError(f"inputs[0].datatype: got {quoted(tensor.datatype)}; must be 'BYTES'")
    elements = _inline(tensor.data) if tensor.data is not None else list(_binary(tensor, binary_part))
    if any(size < 0 for size in tensor.shape) or prod(tensor.shape) != len(elements):
        raise InvalidInputError(f"inputs[0].shape: got {tensor.shape} for {len(elements)} elements")
    return elements


def _inline(data: list[Any]) -> list[str]:
    flat = list(chain.from_iterable(item if isinstance(item, list) else [item] for item in data))
    for number, item in enumerate(flat):
        if not isinstance(item, str):
            raise InvalidInputError(f"inputs[0].data[{number}]: got {quoted(item)}; must be a string")
    return flat


def _binary(tensor: InputTensor, binary_part: memoryview) -> Iterator[str]:
    size = tensor.parameters.binary_data_size
    if size is None:
        raise InvalidInputError("inputs[0]: has neither data nor parameters.binary_data_size")
    if size != len(binary_part):
        raise MalformedBodyError(
            f"inputs[0].parameters.binary_data_size: got {size}, and {len(binary_part)} bytes follow the JSON"
        )
    position = 0
    while position < size:
        start = position + _LENGTH.size
        if start > size or (end := start + _LENGTH.unpack_from(binary_part, position)[0]) > size:
            raise MalformedBodyError(f"inputs[0]: the binary data ends within an element, at byte {size}")
        try:
            yield str(binary_part[start:end], "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"inputs[0]: the element at byte {position} is not UTF-8") from error
        position = end


def _answer(engine: Engine, request: InferRequest, predictions: Sequence[Prediction]) -> Reply:
    available = {output.name: output for output in engine.model.outputs}
    all_binary = request.parameters.get("binary_data_output") is True
    wanted = request.outputs or [
        RequestedOutput(name=name, parameters=OutputParameters(binary_data=all_binary)) for name in available
    ]
    tensors: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for requested in wanted:
        output = available.get(requested.name)
        if output is None:
            raise InvalidInputError(
                f"outputs: got {quoted(requested.name)}; there are {', '.join(available)}"
            )
        tensor, chunk = _tensor(output, predictions, binary=requested.parameters.binary_data or all_binary)
        tensors.append(tensor)
        chunks.append(chunk)
    document = {"model_name": engine.args.name, "outputs": tensors}
    if request.id:
        document["id"] = request.id
    head = to_json(document, inf_nan_mode="null")
    if not any("data" not in tensor for tensor in tensors):
        return Reply(head, JSON_TYPE)
    return Reply(head + b"".join(chunks), BINARY_TYPE, headers={HEADER_LENGTH: str(len(head))})


def _tensor(
    output: Output, predictions: Sequence[Prediction], *, binary: bool
) -> tuple[dict[str, Any], bytes]:
    """Return the tensor's JSON and the bytes that follow it; the first dimension counts the predictions."""
    rows = [_row(output, prediction[output.name]) for prediction in predictions]
    shape = [len(rows)] if len(output.shape) == 1 else [len(rows), len(rows[0])]
    flat = list(chain.from_iterable(rows))
    tensor: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": shape}
    if not binary:
        return tensor | {"data": flat}, b""
    if output.datatype in _NUMBERS:
        chunk = np.asarray(flat, dtype=_NUMBERS[output.datatype]).tobytes()
    else:
        chunk = b"".join(_LENGTH.pack(len(item)) + item for item in (text.encode() for text in flat))
    return tensor | {"parameters": {"binary_data_size": len(chunk)}}, chunk


def _row(output: Output, value: Any) -> list[Any]:
    """Return the elements of one prediction. A value that is neither text nor number is sent as JSON."""
    if len(output.shape) == 2:
        return list(value)
    if output.datatype == "BYTES" and not isinstance(value, str):
        return [to_json(value).decode()]
    return [value]
