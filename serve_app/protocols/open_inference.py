"""Open Inference Protocol v2 over HTTP, with Triton's binary tensor extension, which its clients use.

Specifications: the "Open Inference Protocol" REST API
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md), and
Triton's "Binary Data Extension" for `Inference-Header-Content-Length`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json

from serve_app.engine.base import Engine
from serve_app.http.errors import JSON_TYPE, InvalidInputError, MalformedBodyError, Reply
from serve_app.protocols.bodies import parse_body
from serve_app.protocols.open_inference_tensors import (
    OUTPUT_DATATYPE,
    VERSION,
    InputColumn,
    OutputTensor,
    check_tensor,
    inputs_of,
    model_facts,
    model_metadata,
    number_datatype,
    output_tensors,
    task_parameters,
    unpacked,
)
from serve_app.text import quoted

HEADER_LENGTH: Final = "inference-header-content-length"
BINARY_TYPE: Final = "application/octet-stream"


class _Message(BaseModel):
    """Strict about types. Unknown members are extensions of clients and are ignored; null is as absent."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, members: Any) -> Any:
        if not isinstance(members, dict):
            return members
        return {name: value for name, value in members.items() if value is not None}


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
    """The form in which the client wants one output; others, as `classification`, change nothing."""

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
    request = parse_body(InferRequest, json_part)
    texts = inputs_of(engine, _columns(request.inputs, binary_part))
    given = {name: value for name, value in request.parameters.items() if value is not None}
    numbers = number_datatype(given)
    if numbers != "FP32":
        _check_binary(engine, request, numbers)
    predictions = await engine.predict(texts, task_parameters(given))
    tensors = output_tensors(engine, predictions, [output.name for output in request.outputs], numbers)
    return _answer(engine, request, tensors)


def metadata(engine: Engine) -> Reply:
    """Return the model's metadata: its tensors, and under `parameters` how the model runs here."""
    return Reply(to_json({**model_metadata(engine), "parameters": model_facts(engine)}), JSON_TYPE)


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


def _columns(inputs: Sequence[InputTensor], binary_part: memoryview) -> list[InputColumn]:
    """Return the input tensors; those without data in the JSON have their parts of `binary_part` in turn."""
    columns, start = [], 0
    stated = sum(tensor.parameters.binary_data_size or 0 for tensor in inputs if tensor.data is None)
    for number, tensor in enumerate(inputs):
        where = f"inputs[{number}]"
        if tensor.data is not None:
            texts = _inline(tensor.data, where)
        else:
            size = tensor.parameters.binary_data_size
            if size is None:
                raise InvalidInputError(f"{where}: has neither data nor parameters.binary_data_size")
            if stated != len(binary_part):
                raise MalformedBodyError(
                    f"{where}.parameters.binary_data_size: got {size}, with others {stated}, and "
                    f"{len(binary_part)} bytes follow the JSON"
                )
            texts = list(unpacked(binary_part[start : start + size], where))
            start += size
        check_tensor(where, tensor.datatype, tensor.shape, len(texts))
        columns.append(InputColumn(tensor.name, where, texts))
    return columns


def _inline(data: list[Any], where: str) -> list[str]:
    """Return the elements of `data`, which may be lists of lists, in row-major order."""
    texts: list[str] = []
    # The parser of JSON bounds the depth.
    rest = list(reversed(data))
    while rest:
        item = rest.pop()
        if isinstance(item, list):
            rest.extend(reversed(item))
        elif isinstance(item, str):
            texts.append(item)
        else:
            raise InvalidInputError(f"{where}.data[{len(texts)}]: got {quoted(item)}; must be a string")
    return texts


def _check_binary(engine: Engine, request: InferRequest, numbers: str) -> None:
    """Raise InvalidInputError if numbers in half precision would be in the JSON, as Triton and KServe do."""
    if _all_binary(request):
        return
    in_json = [output.name for output in request.outputs if not output.parameters.binary_data]
    for output in engine.model.outputs:
        if output.datatype == "FP32" and (output.name in in_json or not request.outputs):
            raise InvalidInputError(
                f"parameters.{OUTPUT_DATATYPE}: JSON has no {numbers}; ask for {output.name} with the "
                "parameter binary_data, or for all outputs with the request's parameter binary_data_output"
            )


def _all_binary(request: InferRequest) -> bool:
    return request.parameters.get("binary_data_output") is True


def _answer(engine: Engine, request: InferRequest, tensors: Sequence[OutputTensor]) -> Reply:
    asked = {output.name: output.parameters.binary_data for output in request.outputs}
    described: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for tensor in tensors:
        members: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if _all_binary(request) or asked.get(tensor.name, False):
            chunks.append(tensor.packed())
            members["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            members["data"] = tensor.elements
        described.append(members)
    document = {"model_name": engine.args.name, "model_version": VERSION, "outputs": described}
    if request.id:
        document["id"] = request.id
    head = to_json(document, inf_nan_mode="null")
    if not chunks:
        return Reply(head, JSON_TYPE)
    return Reply(head + b"".join(chunks), BINARY_TYPE, headers={HEADER_LENGTH: str(len(head))})
