"""What the gateway answers itself or relays: repository index, versions, KServe V1 and gRPC."""

import grpc
import pytest
from starlette.testclient import TestClient
from tritonclient.grpc import service_pb2 as theirs

from serve_app.access.folder import AccessFolder
from serve_app.gateway import rpc
from serve_app.gateway.application import gateway_application
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.public_reason import NOT_LOADED
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.errors import JSON_TYPE, Reply
from serve_app.http.streaming import StreamedReply, data_event
from serve_app.rpc.service import InferenceMethods
from tests.harness.builders import run
from tests.unit.test_http_errors import require_error
from tests.unit.test_model_index import FAILED, FakeServe, application
from tests.unit.test_rpc import Context


class FakeRelay:
    """Answers with what it is to send; an unknown model is refused as by the real one."""

    def __init__(self, index):
        self.index = index

    async def send(self, name, verb, body, headers):
        await self.index.resolve(name)
        return Reply(b'["%s", "%s"]' % (name.encode(), verb.encode()), JSON_TYPE)

    async def stream(self, name, verb, body, headers):
        await self.index.resolve(name)

        async def chunks():
            for each in (name, verb):
                yield data_event(each.encode())

        return StreamedReply(chunks())


class Gateway(InferenceMethods):
    """Imitates the gateway's deployment."""

    def __init__(self):
        self.serve = FakeServe(
            a=application(),
            b=application("DEPLOY_FAILED", running=0, deployment_message=FAILED),
            c=application("DEPLOYING", running=0),
            d=application("DELETING", running=0),
            rests=application(running=0),
        )
        self.index = ModelIndex(self.serve)
        self.relay = FakeRelay(self.index)

    async def answer_rpc(self, method, request, metadata):
        gate = rpc.Gate(self.index, VisibleModels(self.index, AccessFolder(None)), self.relay, metadata)
        return await rpc.answer_rpc(gate, method, request)


@pytest.fixture
def client():
    gateway = Gateway()
    with TestClient(gateway_application(gateway.index, gateway.relay)) as client:
        yield client


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": false}', b'{"ready": null}'])
def test_the_repository_lists_all_models(client, body):
    listed = client.post("/v2/repository/index", content=body).json()
    assert [(each["name"], each["version"], each["state"]) for each in listed] == [
        ("a", "1", "READY"),
        ("b", "1", "UNAVAILABLE"),
        ("c", "1", "LOADING"),
        ("d", "1", "UNLOADING"),
        ("rests", "1", "READY"),
    ]
    assert listed[1]["reason"] == NOT_LOADED


def test_the_repository_lists_those_that_answer(client):
    listed = client.post("/v2/repository/index", json={"ready": True}).json()
    assert [each["name"] for each in listed] == ["a", "rests"]


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[]", 422), (b'{"ready": 1}', 422), (b'{"all": true}', 422)]
)
def test_a_bad_request_to_the_repository_is_the_clients_error(client, body, status):
    require_error(client.post("/v2/repository/index", content=body), status)


@pytest.mark.parametrize("action", ["load", "unload"])
def test_models_are_neither_loaded_nor_unloaded_by_requests(client, action):
    refused = client.post(f"/v2/repository/models/a/{action}", json={"parameters": {}})
    assert "ModelEndpoint" in require_error(refused, 400)


def test_the_server_names_its_extensions(client):
    assert "model_repository" in client.get("/v2").json()["extensions"]


def test_a_version_in_the_path_is_checked(client):
    assert client.get("/v2/models/a/versions/1/ready").json() == {"name": "a", "ready": True}
    assert client.post("/v2/models/a/versions/1/infer", json={}).json() == ["a", "infer"]
    require_error(client.post("/v2/models/a/versions/2/infer", json={}), 404)
    require_error(client.get("/v2/models/a/versions/2"), 404)
    require_error(client.get("/v2/models/nope/versions/1"), 404)


@pytest.mark.parametrize("path", ["/v1/models/a:predict", "/v1/models/a:predict/", "/v2/models/a/v1:predict"])
def test_kserve_s_path_is_relayed(client, path):
    assert client.post(path, json={}).json() == ["a", "v1:predict"]


def test_kserve_s_errors_have_a_sentence(client):
    require_error(client.post("/v1/models/nope:predict", json={}), 404)
    require_error(client.post("/v1/models/b:predict", json={}), 503)


def ask(method, message=None):
    """Return the answer as Triton's client reads it, and the status code."""
    context = Context()
    content = message.SerializeToString() if message else b""
    answered = run(getattr(Gateway(), method)(content, context))
    return getattr(theirs, f"{method}Response").FromString(bytes(answered)), context.status


def test_the_server_is_live_and_ready_and_says_what_it_is():
    assert ask("ServerLive")[0].live
    assert ask("ServerReady")[0].ready
    described, _ = ask("ServerMetadata")
    assert described.name == "model-endpoints"
    assert "model_repository" in described.extensions


def test_a_server_whose_controller_is_away_is_not_ready():
    gateway = Gateway()
    gateway.serve.error = RuntimeError("gone")
    answered = run(gateway.ServerReady(b"", Context()))
    assert not theirs.ServerReadyResponse.FromString(bytes(answered)).ready


@pytest.mark.parametrize(("name", "ready"), [("a", True), ("b", False), ("c", False), ("rests", True)])
def test_whether_a_model_is_ready(name, ready):
    answered, status = ask("ModelReady", theirs.ModelReadyRequest(name=name))
    assert (answered.ready, status) == (ready, None)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ModelReady", theirs.ModelReadyRequest(name="nope")),
        ("ModelReady", theirs.ModelReadyRequest(name="a", version="2")),
        ("ModelReady", theirs.ModelReadyRequest()),
        ("ModelMetadata", theirs.ModelMetadataRequest(name="nope")),
        ("ModelMetadata", theirs.ModelMetadataRequest(name="rests", version="2")),
        ("ModelInfer", theirs.ModelInferRequest(model_name="nope")),
    ],
)
def test_what_is_not_there_is_not_found(method, message):
    assert ask(method, message)[1] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelInfer"])
def test_a_model_that_does_not_answer_is_unavailable(method):
    name = "model_name" if method == "ModelInfer" else "name"
    message = getattr(theirs, f"{method}Request")(**{name: "b"})
    assert ask(method, message)[1] == grpc.StatusCode.UNAVAILABLE


def test_a_model_that_rests_is_not_woken_up_for_its_metadata():
    described, _ = ask("ModelMetadata", theirs.ModelMetadataRequest(name="rests"))
    assert (described.name, list(described.versions)) == ("rests", ["1"])


def test_inference_is_relayed_with_its_bytes():
    sent = run(
        Gateway().answer_rpc("ModelInfer", theirs.ModelInferRequest(model_name="a").SerializeToString(), {})
    )
    assert sent.body == b'["a", "ModelInfer"]'


@pytest.mark.parametrize(
    ("path", "body", "verb"),
    [
        ("/v1/chat/completions", {"model": "a"}, "v1/chat/completions"),
        ("/v1/completions", {"model": "a"}, "v1/completions"),
        ("/v2/models/a/v1/chat/completions", {}, "v1/chat/completions"),
        ("/v2/models/a/generate", {}, "generate"),
        ("/v2/models/a/versions/1/generate_stream", {}, "generate_stream"),
        ("/v2/models/a", {"inputs": "a", "stream": True}, ""),
    ],
)
def test_what_may_be_streamed_is_relayed_so(client, path, body, verb):
    answer = client.post(path, json=body)
    assert answer.text == f"data: a\n\ndata: {verb}\n\n"
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_what_is_never_streamed_is_relayed_as_before(client):
    for path in ("/v2/models/a", "/v2/models/a/predict"):
        assert client.post(path, json={"inputs": "a"}).json()[0] == "a"


def test_errors_of_chats_have_openai_s_shape_at_the_gateway_too(client):
    answer = client.post("/v1/chat/completions", json={"model": "nope"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_model")
    answer = client.post("/v1/chat/completions", json={})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "invalid_request_error")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"model": "a", "text": "x", "model": "b"}', 422),
        ('{"model": "b", "text": "x", "model": "a"}', 422),
        ('{"model": 1, "text": "x", "model": "a"}', 422),
        ('{"model": "a", "text": "x", "model": "a"}', 200),
        ('{"model": "a", "text": "\\"model\\" b", "parameters": {"model": "b"}}', 200),
    ],
)
@pytest.mark.parametrize("blanks", [0, 20_000])
def test_a_body_names_one_model(client, body, status, blanks):
    """HAProxy reads the first name of a body, and a parser of JSON the last."""
    answer = client.post("/predict", content=body.replace("{", "{" + " " * blanks, 1))
    assert answer.status_code == status
    if status == 422:
        require_error(answer, 422)
        assert "name one model" in answer.json()["error"]
