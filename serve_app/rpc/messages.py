"""The messages of the Open Inference Protocol's gRPC service, made at run time from one table.

Names and numbers are those of the protocol's `grpc_predict_v2.proto` (package `inference`,
https://github.com/kserve/open-inference-protocol). They have a descriptor pool of their own, so that a
process that also has a client's copy of the messages can import both.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from serve_app.http.errors import MalformedBodyError
from serve_app.text import quoted

PACKAGE: Final = "inference"
SERVICE: Final = f"{PACKAGE}.GRPCInferenceService"
METHODS: Final = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Each takes the message `<method>Request` and returns `<method>Response`."""

_FILE: Final = "model_endpoints/open_inference.proto"

# The fields of each message in the order of their numbers, which count from 1. A type in brackets is
# repeated; one with braces is that of the values of a map whose keys are texts.
_MESSAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": "bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": "bool"},
    "ModelReadyRequest": {"name": "string", "version": "string"},
    "ModelReadyResponse": {"ready": "bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {"name": "string", "version": "string", "extensions": "[string]"},
    "ModelMetadataRequest": {"name": "string", "version": "string"},
    "ModelMetadataResponse": {
        "name": "string",
        "versions": "[string]",
        "platform": "string",
        "inputs": "[ModelMetadataResponse.TensorMetadata]",
        "outputs": "[ModelMetadataResponse.TensorMetadata]",
    },
    "ModelMetadataResponse.TensorMetadata": {"name": "string", "datatype": "string", "shape": "[int64]"},
    "ModelInferRequest": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": "{InferParameter}",
        "inputs": "[ModelInferRequest.InferInputTensor]",
        "outputs": "[ModelInferRequest.InferRequestedOutputTensor]",
        "raw_input_contents": "[bytes]",
    },
    "ModelInferRequest.InferInputTensor": {
        "name": "string",
        "datatype": "string",
        "shape": "[int64]",
        "parameters": "{InferParameter}",
        "contents": "InferTensorContents",
    },
    "ModelInferRequest.InferRequestedOutputTensor": {"name": "string", "parameters": "{InferParameter}"},
    "ModelInferResponse": {
        "model_name": "string",
        "model_version": "string",
        "id": "string",
        "parameters": "{InferParameter}",
        "outputs": "[ModelInferResponse.InferOutputTensor]",
        "raw_output_contents": "[bytes]",
    },
    "ModelInferResponse.InferOutputTensor": {
        "name": "string",
        "datatype": "string",
        "shape": "[int64]",
        "parameters": "{InferParameter}",
        "contents": "InferTensorContents",
    },
    # All of them are one `oneof`.
    "InferParameter": {
        "bool_param": "bool",
        "int64_param": "int64",
        "string_param": "string",
        "double_param": "double",
        "uint64_param": "uint64",
    },
    "InferTensorContents": {
        "bool_contents": "[bool]",
        "int_contents": "[int32]",
        "int64_contents": "[int64]",
        "uint_contents": "[uint32]",
        "uint64_contents": "[uint64]",
        "fp32_contents": "[float]",
        "fp64_contents": "[double]",
        "bytes_contents": "[bytes]",
    },
}
PARAMETER_CHOICE: Final = "parameter_choice"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    """Return the description of the messages and of the service, as protoc would make it of a file."""
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for path, fields in _MESSAGES.items():
        outer, _, name = path.rpartition(".")
        message = made[outer].nested_type.add() if outer else file.message_type.add()
        message.name = name
        made[path] = message
        message.field.extend(_fields(message, path, fields))
    made["InferParameter"].oneof_decl.add(name=PARAMETER_CHOICE)
    for field in made["InferParameter"].field:
        field.oneof_index = 0
    service = file.service.add(name=SERVICE.removeprefix(f"{PACKAGE}."))
    for method in METHODS:
        service.method.add(
            name=method,
            input_type=f".{PACKAGE}.{method}Request",
            output_type=f".{PACKAGE}.{method}Response",
        )
    return file


def _fields(
    message: descriptor_pb2.DescriptorProto, path: str, fields: Mapping[str, str]
) -> Iterator[descriptor_pb2.FieldDescriptorProto]:
    """Yield the fields of `message`; a map also gets its message of an entry, as protoc makes it."""
    for number, (name, stated) in enumerate(fields.items(), start=1):
        kind = stated.strip("[]{}")
        if stated.startswith("{"):
            entry = message.nested_type.add(name=f"{name.title()}Entry")
            entry.options.map_entry = True
            entry.field.extend([_field("key", 1, "string"), _field("value", 2, kind)])
            kind = f"{path}.{entry.name}"
        yield _field(name, number, kind, repeated=stated[0] in "[{")


def _field(
    name: str, number: int, kind: str, *, repeated: bool = False
) -> descriptor_pb2.FieldDescriptorProto:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        return _Field(name=name, number=number, type=_SCALARS[kind], label=label)
    type_name = f".{PACKAGE}.{kind}"
    return _Field(name=name, number=number, type=_Field.TYPE_MESSAGE, type_name=type_name, label=label)


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return {
        path: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{path}"))
        for path in _MESSAGES
    }


_CLASSES: Final = _classes()


def new(name: str, /, **fields: Any) -> Any:
    """Return a message of the type `name`, such as "ModelInferResponse"."""
    return _CLASSES[name](**fields)


def parse(name: str, content: bytes) -> Any:
    """Return the message of the type `name` in `content`; raise MalformedBodyError if there is none."""
    try:
        return _CLASSES[name].FromString(content)
    except DecodeError as error:
        raise MalformedBodyError(f"the message is no {name}: {quoted(content[:40])}") from error


def publish_for_reflection() -> None:
    """Put the messages into the process's common pool, where gRPC's reflection looks for them.

    A process that has a client's copy of them keeps that.
    """
    pool = descriptor_pool.Default()
    try:
        pool.FindServiceByName(SERVICE)
    except KeyError:
        pool.AddSerializedFile(_file().SerializeToString())
