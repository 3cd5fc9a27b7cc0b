"""What the gateway answers itself is told to logs and traces, and what a replica answers is not."""

import asyncio
import json

import grpc
import pytest
from opentelemetry.trace import StatusCode
from starlette.testclient import TestClient

from serve_app.engine.records import Observers
from serve_app.gateway import rpc
from serve_app.gateway.application import gateway_application
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.relay import Relay
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.errors import JSON_TYPE, ModelNotReadyError, Reply
from serve_app.replica.own_answers import OwnAnswers
from serve_app.rpc.messages import new
from serve_app.rpc.service import InferenceMethods
from tests.harness.builders import run
from tests.unit.test_access_front import KEYS, access_folder, key
from tests.unit.test_access_log import line_of
from tests.unit.test_model_index import FakeServe, application
from tests.unit.test_request_spans import PARENT, TRACE, Spans
from tests.unit.test_rpc import Context

ID = {"x-request-id": "r1"}


class Handle:
    """Imitates Serve's handle of one model, whose replica answers at once."""

    def __init__(self):
        self.call = self
        self.reply = Reply(b"{}", JSON_TYPE)

    def remote(self, verb, body, headers):
        future = asyncio.get_running_loop().create_future()
        future.set_result(self.reply)
        return future


class Gateway(InferenceMethods):
    """Imitates the gateway's deployment; `a` answers, `broken` does not, and `own` is the one of key a."""

    def __init__(self, folder, **settings):
        self.records = []
        observers = Observers()
        observers.requests.append(self.records.append)
        self.own = OwnAnswers(observers)
        serve = FakeServe(
            a=application(), broken=application("DEPLOY_FAILED", 0), own=application(allow=["a"])
        )
        self.index = ModelIndex(serve)
        self.handle = Handle()
        self.relay = Relay(self.index, lambda name: self.handle)
        self.visible = VisibleModels(self.index, access_folder(folder, **settings))
        self.app = gateway_application(self.index, self.relay, self.visible, self.own)

    async def answer_rpc(self, method, request, metadata):
        gate = rpc.Gate(self.index, self.visible, self.relay, metadata)
        return await self.own.answer_rpc(
            method, request, metadata, lambda: rpc.answer_rpc(gate, method, request)
        )

    def call(self, method, message, **metadata):
        """Return the status of a call over gRPC."""
        context = Context([*metadata.items(), ("x-request-id", "r1")])
        run(getattr(self, method)(message.SerializeToString(), context))
        return context.status


@pytest.fixture
def gateway(tmp_path):
    return Gateway(tmp_path, keys="optional")


@pytest.fixture
def client(gateway):
    with TestClient(gateway.app, raise_server_exceptions=False) as client:
        yield client


def logged(gateway):
    """Return the line of the access log for the only request that the observers were told of."""
    [record] = gateway.records
    return line_of(record, model="", replica="g1")


@pytest.mark.parametrize(
    ("method", "path", "body", "model", "verb", "status", "code"),
    [
        ("GET", "/v2/models", None, "", "/v2/models", 200, ""),
        ("GET", "/v1/models/", None, "", "/v1/models", 200, ""),
        ("GET", "/", None, "", "/", 200, ""),
        ("POST", "/v2/repository/index", {}, "", "/v2/repository/index", 200, ""),
        ("GET", "/v2/models/a/ready", None, "a", "ready", 200, ""),
        ("GET", "/v2/models/a/versions/1/ready", None, "a", "ready", 200, ""),
        ("GET", "/v2/models/no", None, "no", "metadata", 404, "unknown_model"),
        ("GET", "/v1/models/no", None, "no", "/v1/models/{name}", 404, "unknown_model"),
        ("POST", "/v1/models/no:predict", {}, "no", "v1:predict", 404, "unknown_model"),
        ("POST", "/v2/models/no", {}, "no", "", 404, "unknown_model"),
        ("POST", "/v2/models/no/versions/1/infer", {}, "no", "infer", 404, "unknown_model"),
        ("POST", "/predict", {"model": "no"}, "no", "predict", 404, "unknown_model"),
        ("POST", "/v1/embeddings", {"model": "broken"}, "broken", "v1/embeddings", 503, "model_not_ready"),
        ("POST", "/v1/chat/completions", {}, "", "v1/chat/completions", 422, "invalid_input"),
        ("POST", "/v2/models/own/predict", {}, "own", "predict", 403, "not_allowed"),
        ("PUT", "/v2/models/a/predict", {}, "", "/v2/models/a/predict", 405, "method_not_allowed"),
        ("GET", "/nothing/here", None, "", "/nothing/here", 404, "unknown_path"),
    ],
)
def test_an_answer_of_the_gateway_is_a_line_with_the_members_of_a_replicas(
    client, gateway, method, path, body, model, verb, status, code
):
    answer = client.request(method, path, json=body, headers=ID)
    assert answer.status_code == status
    line = logged(gateway)
    assert list(line) == list(line_of(line_record(gateway), model="", replica="g1"))
    assert (line["model"], line["verb"], line["status"], line["code"]) == (model, verb, status, code)
    assert (line["request_id"], line["replica"], line["transport"]) == ("r1", "g1", "http")
    assert line["milliseconds"] > 0
    assert line["response_bytes"] == (None if code else len(answer.content))
    assert (line["input_tokens"], line["queue_milliseconds"], line["streamed"]) == (0, 0, False)


def line_record(gateway):
    [record] = gateway.records
    return record


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/predict"), ("POST", "/v2/models/a/predict"), ("GET", "/v2/models/a")]
)
@pytest.mark.parametrize("status", [200, 422, 429])
def test_what_a_replica_has_answered_is_the_replicas_to_tell(client, gateway, method, path, status):
    gateway.handle.reply = Reply(b"{}", JSON_TYPE, status)
    assert client.request(method, path, json={"model": "a"}).status_code == status
    assert gateway.records == []


@pytest.mark.parametrize("path", ["/health", "/ready", "/v2/health/live", "/v2/health/ready/"])
def test_probes_have_no_lines(client, gateway, path):
    assert client.get(path).status_code == 200
    assert gateway.records == []


def test_a_request_that_no_replica_got_in_time_is_the_gateways(client, gateway):
    gateway.handle.remote = None
    gateway.relay._handle_of = _lost
    assert client.post("/predict", json={"model": "a"}).status_code == 503
    assert logged(gateway)["code"] == "model_not_ready"


def _lost(name):
    raise ModelNotReadyError("lost")


def test_the_line_has_the_name_of_the_key_and_never_the_key(client, gateway):
    client.get("/v2/models/own/ready", headers=key("a"))
    line = logged(gateway)
    assert line["caller"] == "a"
    assert KEYS["a"] not in json.dumps(line)


def test_a_body_is_counted_and_not_logged(client, gateway):
    body = {"model": "no", "text": "secret words"}
    client.post("/predict", json=body)
    line = logged(gateway)
    assert line["request_bytes"] == len(json.dumps(body, separators=(",", ":")))
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize("path", ["/v2/models/" + "n" * 5000 + "/predict", "/" + "n" * 5000])
def test_a_line_is_short_whatever_a_client_sends(client, gateway, path):
    client.post(path, json={}, headers={"x-request-id": "i" * 5000})
    assert len(json.dumps(logged(gateway))) < 700


def test_a_fault_of_the_gateway_is_told(gateway):
    gateway.index.all = None
    with TestClient(gateway.app, raise_server_exceptions=False) as client:
        assert client.get("/v2/models").status_code == 500
    assert (logged(gateway)["status"], logged(gateway)["code"]) == (500, "internal_error")


def test_without_observers_the_application_is_as_it_was(tmp_path):
    gateway = Gateway(tmp_path)
    own = OwnAnswers()
    app = gateway_application(gateway.index, gateway.relay, gateway.visible, own)
    assert own.watched(app) is app


@pytest.mark.parametrize(
    ("method", "message", "model", "status", "code", "said"),
    [
        ("ModelReady", new("ModelReadyRequest", name="a"), "a", 200, "", None),
        ("ModelReady", new("ModelReadyRequest", name="broken"), "broken", 200, "", None),
        ("ServerMetadata", new("ServerMetadataRequest"), "", 200, "", None),
        (
            "ModelInfer",
            new("ModelInferRequest", model_name="no"),
            *("no", 404, "unknown_model", grpc.StatusCode.NOT_FOUND),
        ),
    ],
)
def test_so_is_one_over_grpc(gateway, method, message, model, status, code, said):
    assert gateway.call(method, message) == said
    line = logged(gateway)
    assert (line["verb"], line["transport"]) == (method, "grpc")
    assert (line["model"], line["status"], line["code"]) == (model, status, code)
    assert (line["request_id"], line["request_bytes"]) == ("r1", message.ByteSize())


def test_calls_that_a_replica_answers_and_probes_over_grpc_have_none(gateway):
    gateway.handle.reply = Reply(b"", "application/grpc")
    assert gateway.call("ModelInfer", new("ModelInferRequest", model_name="a")) is None
    assert gateway.call("ServerLive", new("ServerLiveRequest")) is None
    assert gateway.call("ServerReady", new("ServerReadyRequest")) is None
    assert gateway.records == []


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v2/models", "GET /v2/models"),
        ("POST", "/v2/models/broken/predict", "POST /v2/models/{name}/predict"),
        ("POST", "/v1/models/broken:predict", "POST /v1/models/{name}:predict"),
        ("POST", "/nothing/here", "POST"),
    ],
)
def test_it_is_a_span_below_the_clients_whose_name_has_nothing_of_the_client(
    client, gateway, method, path, name
):
    spans = Spans()
    answer = client.request(method, path, json={}, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    spans.observer.request(line_record(gateway))
    assert spans.request.name == name
    assert spans.request.attributes["http.response.status_code"] == answer.status_code
    if answer.status_code != 404:
        assert f"{spans.request.parent.span_id:016x}" == PARENT
    expected = StatusCode.ERROR if answer.status_code == 503 else StatusCode.UNSET
    assert spans.request.status.status_code is expected


def test_a_call_is_a_span_with_the_status_of_grpc(gateway):
    gateway.call("ServerMetadata", new("ServerMetadataRequest"))
    spans = Spans()
    spans.observer.request(line_record(gateway))
    assert spans.request.name == "inference.GRPCInferenceService/ServerMetadata"
    assert spans.request.attributes["rpc.response.status_code"] == "OK"


def test_a_request_with_a_wrong_key_has_the_model_that_its_path_names(client, gateway):
    headers = {"authorization": "Bearer wrong"}
    assert client.post("/v2/models/a/predict", json={"text": "x"}, headers=headers).status_code == 401
    assert logged(gateway)["model"] == "a"
