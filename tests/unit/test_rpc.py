"""Open Inference Protocol over gRPC: the deployment's methods on fakes, with messages of Triton's client."""

import asyncio
import re
import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2 as theirs

from serve_app.contract import MAX_BODY_BYTES
from serve_app.http.errors import (
    ClientGoneError,
    MalformedBodyError,
    ModelNotReadyError,
    OverloadedError,
    RequestTimeoutError,
    ServingError,
)
from serve_app.protocols import error_reply_to_call
from serve_app.protocols.open_inference_rpc import RPC_CALLS, answer_rpc
from serve_app.rpc import messages
from serve_app.rpc.messages import METHODS, SERVICE, new, parse
from serve_app.rpc.service import MAX_DETAILS, InferenceMethods, add_inference_service
from tests.harness.builders import run
from tests.unit import fake_model

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Context:
    """Imitates Ray's gRPC context."""

    status, details, trailing = None, "", ()

    def __init__(self, metadata=()):
        self._metadata = metadata

    def invocation_metadata(self):
        return list(self._metadata)

    def set_trailing_metadata(self, trailing):
        # gRPC ends a call with others as INTERNAL.
        assert all(re.fullmatch(r"[-_.0-9a-z]+", name) for name, _ in trailing)
        self.trailing = trailing

    def set_code(self, status):
        self.status = status

    def set_details(self, details):
        self.details = details


class Replica(InferenceMethods):
    """Imitates the deployment of a model."""

    def __init__(self, fake):
        self.engine = fake.engine

    async def answer_rpc(self, method, request, metadata):
        return await answer_rpc(self.engine, method, request)


class Failing(InferenceMethods):
    """Fails as told."""

    def __init__(self, error):
        self.error = error

    async def answer_rpc(self, method, request, metadata):
        raise self.error


def call(fake, method, content):
    """Return the serialized answer, the status code and the details."""
    context = Context()
    answered = run(getattr(Replica(fake), method)(content, context))
    return answered.SerializeToString(), context.status, context.details


def infer(request, fake=None):
    content, status, details = call(fake or fake_model.service(), "ModelInfer", request.SerializeToString())
    assert status is None, details
    return theirs.ModelInferResponse.FromString(content)


def request(*texts, model="sentiment", **members):
    made = theirs.ModelInferRequest(model_name=model, **members)
    add(made, "text", *texts)
    return made


def add(made, name, *texts):
    tensor = made.inputs.add(name=name, datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)


def packed(*texts):
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def raw(*chunks, model="sentiment", shape=(1,)):
    made = theirs.ModelInferRequest(model_name=model, raw_input_contents=chunks)
    made.inputs.add(name="text", datatype="BYTES", shape=shape)
    return made


def test_the_messages_are_those_of_tritons_client():
    for path, ours in messages._CLASSES.items():
        other = theirs.DESCRIPTOR.pool.FindMessageTypeByName(f"inference.{path}")
        assert {describe(field) for field in ours.DESCRIPTOR.fields} == {
            describe(field) for field in other.fields
        }
    service = theirs.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]]
    assert set(METHODS) <= set(service.methods_by_name)


def describe(field):
    kind = field.message_type.full_name if field.message_type else field.type
    choice = field.containing_oneof.name if field.containing_oneof else ""
    return field.name, field.number, kind, field.is_repeated, choice


def test_texts_in_contents_are_answered_in_contents():
    answered = infer(request("one", "two two", id="7"))
    assert (answered.model_name, answered.model_version, answered.id) == ("sentiment", "1", "7")
    outputs = {output.name: output for output in answered.outputs}
    assert list(outputs) == ["label", "score", "vector", "details"]
    assert list(outputs["label"].contents.bytes_contents) == [b"one", b"two"]
    assert list(outputs["score"].contents.fp32_contents) == [0.5, 1.0]
    assert (list(outputs["vector"].shape), outputs["vector"].datatype) == ([2, 2], "FP32")
    assert not answered.raw_output_contents


def test_raw_texts_are_answered_raw():
    answered = infer(raw(packed(b"one", "zwölf".encode()), shape=(2, 1)))
    assert answered.raw_output_contents[0] == packed(b"one", "zwölf".encode())
    assert struct.unpack("<2f", answered.raw_output_contents[1]) == (0.5, 0.5)
    assert not any(output.HasField("contents") for output in answered.outputs)


def test_outputs_come_as_they_are_asked_for():
    made = request("a")
    for name in ("score", "label"):
        made.outputs.add(name=name).parameters["classification"].int64_param = 2
    assert [output.name for output in infer(made).outputs] == ["score", "label"]


def test_parameters_reach_the_model():
    made = request("a")
    made.parameters["top_k"].int64_param = 4
    made.parameters["sequence_id"].int64_param = 4
    assert b'"top_k":4' in infer(made).outputs[3].contents.bytes_contents[0]


def test_a_pair_is_two_tensors():
    made = theirs.ModelInferRequest(model_name="ranker")
    add(made, "query", "q")
    add(made, "text", "a", "a b")
    assert list(infer(made, fake_model.ranking_service()).outputs[0].contents.fp32_contents) == [1, 2]


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_the_model_is_ready_and_describes_itself(method):
    kind = getattr(theirs, f"{method}Request")
    content, status, _ = call(fake_model.service(), method, kind(name="sentiment").SerializeToString())
    answered = getattr(theirs, f"{method}Response").FromString(content)
    assert status is None
    if method == "ModelReady":
        assert answered.ready
    else:
        assert (answered.name, list(answered.versions), answered.platform) == (
            "sentiment",
            ["1"],
            "transformers",
        )
        assert [(each.name, list(each.shape)) for each in answered.inputs] == [("text", [-1])]
        assert [each.name for each in answered.outputs] == ["label", "score", "vector", "details"]


def changed(**members):
    made = request("a")
    made.inputs[0].MergeFrom(theirs.ModelInferRequest.InferInputTensor(**members))
    return made


def with_parameter(name="top_k", **value):
    made = request("a")
    made.parameters[name].SetInParent()
    for choice, given in value.items():
        setattr(made.parameters[name], choice, given)
    return made


def with_output(name):
    made = request("a")
    made.outputs.add(name=name)
    return made


def with_second_tensor(name):
    made = request("a")
    add(made, name, "b")
    return made


def both_forms():
    made = request("a")
    made.raw_input_contents.append(packed(b"a"))
    return made


BAD = {
    "no inputs": theirs.ModelInferRequest(model_name="sentiment"),
    "two inputs": with_second_tensor("b"),
    "the same input twice": with_second_tensor("text"),
    "no texts": request(),
    "an empty text": request(""),
    "a long text": request("word " * 50),
    "300 texts": request(*["a"] * 300),
    "FP32": changed(datatype="FP32"),
    "no shape": raw(packed(b"a"), shape=()),
    "another shape": changed(shape=[2]),
    "a negative shape": raw(packed(b"a"), shape=(-1,)),
    "a huge shape": raw(packed(b"a"), shape=(2**62, 2**62)),
    "no UTF-8": raw(packed(b"\xff")),
    "a short element": raw(packed(b"abc")[:-1]),
    "a short length": raw(b"\1\0"),
    "a long element": raw(b"\xff\xff\xff\xffa"),
    "an empty chunk": raw(b""),
    "too many chunks": raw(packed(b"a"), packed(b"a")),
    "both forms": both_forms(),
    "an unknown output": with_output("nope"),
    "an output without a name": with_output(""),
    "an unknown parameter": with_parameter("nope", int64_param=1),
    "a parameter without a value": with_parameter(),
    "a parameter of a wrong type": with_parameter(string_param="two"),
    "a parameter out of its range": with_parameter(int64_param=0),
    "a fraction": with_parameter(double_param=1.5),
    "a list": with_parameter(string_param='["a"]'),
    "no number": with_parameter(double_param=float("nan")),
}


@pytest.mark.parametrize("made", BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_the_clients_error(made):
    content, status, details = call(fake_model.service(), "ModelInfer", made.SerializeToString())
    assert (content, status) == (b"", INVALID)
    assert details


@pytest.mark.parametrize("content", [b"\xff" * 9, b"\x0a\x7fa", b"\x0a\x01\xff", b"a"])
@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelInfer"])
def test_what_is_no_message_is_the_clients_error(method, content):
    assert call(fake_model.service(), method, content)[1] == INVALID


def test_a_message_above_the_limit_is_refused():
    _, status, details = call(fake_model.service(), "ModelInfer", b"a" * (MAX_BODY_BYTES + 1))
    assert (status, str(MAX_BODY_BYTES) in details) == (INVALID, True)


@pytest.mark.parametrize(
    ("model", "version"), [("other", ""), ("sentiment", "2"), ("", "1"), ("sentiment\0", "")]
)
def test_another_model_or_version_is_not_found(model, version):
    made = request("a", model=model, model_version=version)
    _, status, _ = call(fake_model.service(), "ModelInfer", made.SerializeToString())
    assert status == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ServerMetadata"])
def test_what_is_about_the_server_is_not_the_models(method):
    assert call(fake_model.service(), method, b"")[1] == grpc.StatusCode.NOT_FOUND


def test_a_text_that_begins_with_a_bracket_is_no_list():
    made = with_parameter("function_to_apply", string_param="[a")
    assert "'[a'" in call(fake_model.service(), "ModelInfer", made.SerializeToString())[2]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OverloadedError("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (RequestTimeoutError("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (ModelNotReadyError("loads"), grpc.StatusCode.UNAVAILABLE),
        (ClientGoneError("gone"), grpc.StatusCode.CANCELLED),
        (ValueError("secret"), grpc.StatusCode.INTERNAL),
    ],
)
def test_each_error_has_its_code(error, status):
    context = Context()
    assert run(Failing(error).ModelInfer(b"", context)) == b""
    assert context.status == status
    assert "secret" not in context.details


def test_a_model_that_fails_is_internal():
    _, status, details = call(
        fake_model.service(), "ModelInfer", request(fake_model.BROKEN).SerializeToString()
    )
    assert (status, "log" in details) == (grpc.StatusCode.INTERNAL, True)


def test_details_are_cut():
    context = Context()
    run(Failing(ModelNotReadyError("é" * 5000)).ModelInfer(b"", context))
    assert len(context.details) == MAX_DETAILS


def test_every_error_over_http_has_a_code():
    from serve_app.rpc.service import STATUS_CODES

    def below(kind):
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    # The media type and the method are none of gRPC's.
    assert {kind.status for kind in below(ServingError)} - STATUS_CODES.keys() <= {405, 415, 424}


def test_the_gateway_gets_a_message_or_a_sentence():
    async def scenario():
        engine = fake_model.service().engine
        good = await RPC_CALLS["ModelInfer"](engine, request("a").SerializeToString(), {})
        with pytest.raises(MalformedBodyError) as bad:
            await RPC_CALLS["ModelInfer"](engine, b"\xff", {})
        return good, error_reply_to_call("ModelInfer", bad.value)

    good, bad = asyncio.run(scenario())
    assert theirs.ModelInferResponse.FromString(good.body).model_name == "sentiment"
    assert (bad.status, bad.body.startswith(b"the message is no ModelInferRequest")) == (400, True)


def test_the_service_is_registered_with_its_methods_as_bytes():
    class Server:
        def add_generic_rpc_handlers(self, handlers):
            [self.handler] = handlers

    server = Server()
    add_inference_service(None, server)
    assert {f"/{SERVICE}/{method}" for method in METHODS} == server.handler._method_handlers.keys()
    for handler in server.handler._method_handlers.values():
        assert handler.request_deserializer is None
    assert parse("ModelReadyRequest", new("ModelReadyRequest", name="a").SerializeToString()).name == "a"
