"""Tensors of the Open Inference Protocol, over HTTP and gRPC: texts of input tensors, tensors of predictions.

A BYTES tensor in binary is its elements one after the other, each a little-endian uint32 length and the
bytes; other tensors are little-endian numbers. Elements are in row-major order. Numbers that a model gives in
FP32 can be had in FP16 and BF16, which have neither a form in JSON nor a member of `contents`.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Final

import numpy as np
from pydantic_core import to_json

from serve_app.engine.base import Engine, Input, Output, Prediction, TextPair
from serve_app.http.errors import InvalidInputError, MalformedBodyError, UnknownVersionError
from serve_app.telemetry.memory import memory_of_this_process
from serve_app.text import quoted, shortened

# An endpoint has one version; a change of it replaces the replicas.
VERSION: Final = "1"
PLATFORM: Final = "transformers"

# Our own request parameter. It is for all outputs, because clients of Triton cannot state one for each.
OUTPUT_DATATYPE: Final = "output_datatype"
# Request parameters of the protocol, of Triton's extensions, and our own. All others are those of the task.
_PROTOCOL_PARAMETERS: Final = frozenset(
    {
        *("binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"),
        *("headers", OUTPUT_DATATYPE),
    }
)

# How numpy names the numbers of binary tensors; it has no name for BF16.
_NUMBERS: Final = {"FP32": "<f4", "INT64": "<i8"}
# The least magnitudes that would be rounded to infinity.
_TOO_LARGE: Final = {"FP16": 65520.0, "BF16": (2 - 2**-8) * 2.0**127}
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True)
class InputColumn:
    """One input tensor: its name and its elements; `where` names it in messages."""

    name: str
    where: str
    texts: list[str]


@dataclass(frozen=True)
class OutputTensor:
    """One output tensor; `elements` are texts or numbers, as `datatype` says."""

    name: str
    datatype: str
    shape: list[int]
    elements: list[Any]

    @property
    def only_binary(self) -> bool:
        return self.datatype in _TOO_LARGE

    def packed(self) -> bytes:
        """Return the elements in binary; raise InvalidInputError if one is too large for the datatype."""
        if self.only_binary:
            return _halves(self.elements, self.datatype)
        if self.datatype in _NUMBERS:
            return np.asarray(self.elements, dtype=_NUMBERS[self.datatype]).tobytes()
        return b"".join(_LENGTH.pack(len(item)) + item for item in (text.encode() for text in self.elements))


def _halves(elements: Sequence[float], datatype: str) -> bytes:
    """Return the numbers in FP16 or BF16, two bytes each, rounded to the nearest and to even."""
    exact = np.asarray(elements, dtype="<f4")
    if (np.abs(exact[np.isfinite(exact)]) >= _TOO_LARGE[datatype]).any():
        raise InvalidInputError(
            f"parameters.{OUTPUT_DATATYPE}: a number of the answer is too large for {datatype}; ask for FP32"
        )
    if datatype == "FP16":
        return exact.astype("<f2").tobytes()
    # BF16 is the upper half of FP32. Rounding up carries into the exponent, as it should.
    bits = exact.view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(exact), 0x7FC0, rounded).astype("<u2").tobytes()


def check_version(name: str, version: str) -> None:
    """Raise UnknownVersionError if a request for the model `name` asks for another version than there is."""
    if version not in ("", VERSION):
        raise UnknownVersionError(f"version: got {quoted(version)}; {name} has one version, {VERSION!r}")


def task_parameters(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a request's parameters that are the task's."""
    return {name: value for name, value in stated.items() if name not in _PROTOCOL_PARAMETERS}


def number_datatype(parameters: Mapping[str, Any]) -> str:
    """Return the datatype in which a request wants numbers that are FP32; raise InvalidInputError."""
    allowed = ("FP32", *_TOO_LARGE)
    datatype = parameters.get(OUTPUT_DATATYPE, "FP32")
    if datatype not in allowed:
        raise InvalidInputError(
            f"parameters.{OUTPUT_DATATYPE}: got {quoted(datatype)}; must be one of {', '.join(allowed)}"
        )
    return str(datatype)


def check_tensor(where: str, datatype: str, shape: Sequence[int], elements: int) -> None:
    """Raise InvalidInputError unless it is a tensor of texts, with as many `elements` as `shape` says."""
    if datatype != "BYTES":
        raise InvalidInputError(f"{where}.datatype: got {quoted(datatype)}; must be 'BYTES'")
    if not shape or any(size < 0 for size in shape) or prod(shape) != elements:
        raise InvalidInputError(f"{where}.shape: got {shortened(str(list(shape)))} for {elements} elements")


def decoded(element: bytes | memoryview, where: str) -> str:
    try:
        return str(element, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{where} is not UTF-8") from error


def unpacked(content: bytes | memoryview, where: str) -> Iterator[str]:
    """Yield the elements of a tensor of texts in binary."""
    size, position = len(content), 0
    while position < size:
        start = position + _LENGTH.size
        if start > size or (end := start + _LENGTH.unpack_from(content, position)[0]) > size:
            raise MalformedBodyError(f"{where}: the binary data ends within an element, at byte {size}")
        yield decoded(content[start:end], f"{where}: the element at byte {position}")
        position = end


def inputs_of(engine: Engine, columns: Sequence[InputColumn]) -> list[Input]:
    """Return the task's inputs, of which each tensor has one text for each; a single text is for all.

    The names are the task's; the only tensor may have any name.
    """
    names, required = engine.model.input_names, engine.model.inputs_required
    given = {column.name: column.texts for column in columns}
    if len(columns) == required == 1 and columns[0].name not in names[1:]:
        given = {names[0]: columns[0].texts}
    missing = [name for name in names[:required] if name not in given]
    if len(given) < len(columns) or missing or not given.keys() <= set(names):
        got = shortened(", ".join(column.name for column in columns))
        wanted = ", ".join(names[:required]) + "".join(f", or also {name}" for name in names[required:])
        raise InvalidInputError(f"inputs: got {got or 'none'}; {engine.args.task} takes {wanted}")
    rows = [given[name] for name in names if name in given]
    count = max(map(len, rows))
    for name, texts in given.items():
        if len(texts) not in (1, count):
            raise InvalidInputError(f"inputs: {name} has {len(texts)} elements, and another one {count}")
    if len(rows) == 1:
        return list(rows[0])
    first, second = (texts * count if len(texts) == 1 else texts for texts in rows)
    return [TextPair(*pair) for pair in zip(first, second, strict=True)]


def output_tensors(
    engine: Engine, predictions: Sequence[Prediction], wanted: Sequence[str], numbers: str
) -> list[OutputTensor]:
    """Return the tensors with the names in `wanted`, or all; raise InvalidInputError for an unknown name.

    `numbers` is what `number_datatype` returns.
    """
    declared = {output.name: output for output in engine.model.outputs}
    present = [name for name in declared if name in predictions[0]]
    for name in wanted:
        if name not in declared:
            raise InvalidInputError(f"outputs: got {quoted(name)}; there are {', '.join(declared)}")
        if name not in present:
            raise InvalidInputError(
                f"outputs: got {name!r}, which is there only with the parameter {declared[name].parameter}"
            )
    return [_tensor(declared[name], predictions, numbers) for name in wanted or present]


def _tensor(output: Output, predictions: Sequence[Prediction], numbers: str) -> OutputTensor:
    """Return the tensor of `output`, whose first dimension counts the predictions."""
    rows = [_row(output, prediction[output.name]) for prediction in predictions]
    shape = [len(rows)] if len(output.shape) == 1 else [len(rows), len(rows[0])]
    datatype = numbers if output.datatype == "FP32" else output.datatype
    return OutputTensor(output.name, datatype, shape, list(chain.from_iterable(rows)))


def _row(output: Output, value: Any) -> list[Any]:
    """Return the elements of one prediction. A value that is neither text nor number is sent as JSON."""
    if len(output.shape) == 2:
        return list(value)
    if output.datatype == "BYTES" and not isinstance(value, str):
        return [to_json(value).decode()]
    return [value]


def model_metadata(engine: Engine) -> dict[str, Any]:
    """Return the model's name, versions and tensors."""
    return {
        "name": engine.args.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [_input(name, number, engine) for number, name in enumerate(engine.model.input_names)],
        "outputs": [_declaration(output) for output in engine.model.outputs],
    }


def _input(name: str, number: int, engine: Engine) -> dict[str, Any]:
    tensor = {"name": name, "datatype": "BYTES", "shape": [-1]}
    return tensor | ({"parameters": {"optional": True}} if number >= engine.model.inputs_required else {})


def _declaration(output: Output) -> dict[str, Any]:
    tensor = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
    return tensor | ({"parameters": {"only_with": output.parameter}} if output.parameter else {})


def model_facts(engine: Engine) -> dict[str, Any]:
    """Return how the model runs here, for `parameters` of its metadata.

    A model of a hub has its public name there. Which folder another one is in does not concern clients.
    """
    limit = engine.input_limit
    return {
        "task": engine.args.task,
        "uri": engine.args.uri if engine.args.uri.startswith("hf://") else "",
        "revision": engine.args.revision,
        "commit": engine.commit,
        "max_input_tokens": limit.max_tokens,
        "truncate_input": limit.truncate,
        **engine.model.description,
        **({"generation": engine.figures.description} if engine.figures is not None else {}),
        "cold_start": engine.cold_start,
        "memory": memory_of_this_process(),
    }
