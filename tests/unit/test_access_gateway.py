"""What the gateway shows to whom, over HTTP and gRPC."""

import grpc
import pytest
from starlette.testclient import TestClient
from tritonclient.grpc import service_pb2 as theirs

from serve_app.gateway import rpc
from serve_app.gateway.application import gateway_application
from serve_app.gateway.model_index import NOBODY, ModelIndex, read_states
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.errors import UnknownModelError
from serve_app.protocols import model_application
from serve_app.rpc.service import InferenceMethods
from tests.harness.builders import run
from tests.unit import fake_model
from tests.unit.test_access_front import access_folder, key
from tests.unit.test_gateway_protocols import FakeRelay
from tests.unit.test_model_index import FakeServe, application
from tests.unit.test_rpc import Context

BODY = {"model": "own", "text": "a"}


class Gateway(InferenceMethods):
    """Imitates the gateway's deployment; of three models, `own` is the one of key a."""

    def __init__(self, folder, **settings):
        serve = FakeServe(own=application(allow=["a"]), shared=application(), rests=application(running=0))
        self.index = ModelIndex(serve)
        self.relay = FakeRelay(self.index)
        self.visible = VisibleModels(self.index, access_folder(folder, **settings))
        self.app = gateway_application(self.index, self.relay, self.visible)

    async def answer_rpc(self, method, request, metadata):
        gate = rpc.Gate(self.index, self.visible, self.relay, metadata)
        return await rpc.answer_rpc(gate, method, request)


@pytest.fixture
def client(tmp_path):
    with TestClient(Gateway(tmp_path).app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def hiding(tmp_path):
    with TestClient(Gateway(tmp_path, notAllowed=404).app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/", "/v2", "/health", "/ready", "/v2/health/live", "/v2/health/ready", "/openapi.json"]
)
def test_what_tells_of_no_model_is_open(client, path):
    assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/own"),
        ("GET", "/v1/models/none"),
        ("GET", "/v2/models/own"),
        ("GET", "/v2/models/own/ready"),
        ("GET", "/v2/models/own/info"),
        ("GET", "/v2/models/own/versions/9"),
        ("GET", "/v2/models/none/versions/9/ready"),
        ("POST", "/v2/repository/index"),
        ("POST", "/predict"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v2/models/own/infer"),
        ("POST", "/v2/models/none/versions/1/infer"),
        ("POST", "/v1/models/own:predict"),
    ],
)
def test_everything_else_needs_a_key_and_tells_no_difference(client, method, path):
    answer = client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "own" not in answer.text


@pytest.mark.parametrize(("name", "seen"), [("a", ["own", "rests", "shared"]), ("b", ["rests", "shared"])])
def test_lists_have_what_the_key_may_ask(client, name, seen):
    def names(path, members, member, **body):
        answer = client.request("POST" if body else "GET", path, headers=key(name), json=body or None).json()
        return [each[member] for each in (answer[members] if members else answer)]

    assert names("/v2/models", "models", "name") == seen
    assert names("/v1/models", "data", "id") == seen
    assert client.get("/v1/models", headers=key(name)).json()["models"] == seen
    assert names("/v2/repository/index", None, "name", ready=False) == seen


def test_a_model_of_another_key_is_refused_and_not_listed_with_the_unknown(client):
    for answer in (
        client.post("/predict", json=BODY, headers=key("b")),
        client.get("/v1/models/own", headers=key("b")),
        client.get("/v2/models/own/ready", headers=key("b")),
        client.get("/v2/models/own/versions/1", headers=key("b")),
    ):
        assert answer.status_code == 403
    unknown = client.post("/predict", json={"model": "none", "text": "a"}, headers=key("b"))
    assert (unknown.status_code, unknown.json()["models"]) == (404, ["rests", "shared"])
    assert client.post("/predict", json=BODY, headers=key("a")).json() == ["own", "predict"]


@pytest.mark.parametrize(
    "path", ["/v2/models/{}", "/v2/models/{}/ready", "/v1/models/{}", "/v2/models/{}/versions/7"]
)
def test_a_hidden_model_is_answered_like_one_that_is_not_there(hiding, path):
    hidden, missing = (hiding.get(path.format(name), headers=key("b")) for name in ("own", "xyz"))
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text == missing.text.replace("xyz", "own")


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("path", ["/v2/models/{}", "/v2/models/{}/ready", "/v2/models/{}/predict"])
def test_a_method_that_is_not_taken_tells_nothing(tmp_path, method, path):
    """The replica of a model and the gateway, which answers for others, say the same."""
    replica = model_application(fake_model.service().engine)
    with TestClient(Gateway(tmp_path).app) as gateway, TestClient(replica) as own:
        there = own.request(method, path.removeprefix("/v2/models/{}") or "/")
        missing = gateway.request(method, path.format("none"))
    assert there.status_code == missing.status_code == 405
    assert there.headers["allow"] == missing.headers["allow"]


def test_the_body_of_a_hidden_model_is_not_looked_at(hiding):
    for content in ({}, {"content": b"{", "headers": key("b") | {"content-type": "text/plain"}}):
        content = {"headers": key("b")} | content
        answers = [hiding.post(f"/v2/models/{name}/predict", **content) for name in ("own", "none")]
        assert [answer.status_code for answer in answers] == [404, 404]


def test_a_model_that_is_gone_names_no_other(tmp_path):
    gateway = Gateway(tmp_path)
    with pytest.raises(UnknownModelError) as unknown:
        run(gateway.index.resolve("none"))
    assert "shared" not in str(unknown.value.document)


@pytest.mark.parametrize(
    ("config", "allow"),
    [
        ({"deployments": [{"name": "Model", "user_config": {"allow": ["a"]}}]}, ("a",)),
        ({"deployments": [{"name": "Model"}]}, ()),
        (None, NOBODY),
    ],
)
def test_a_model_without_deployments_is_its_keys_or_nobodys(config, allow):
    building = {"status": "DEPLOYING", "message": "", "deployments": {}, "deployed_app_config": config}
    assert read_states({"own": building})["own"].allow == allow


def test_grpc_has_the_same_rules(tmp_path):
    gateway = Gateway(tmp_path)

    def ask(method, message, **metadata):
        context = Context(list(metadata.items()))
        run(getattr(gateway, method)(message.SerializeToString(), context))
        return context.status

    infer = theirs.ModelInferRequest(model_name="own")
    ready = theirs.ModelReadyRequest(name="own")
    for method in ("ModelInfer", "ModelReady", "ModelMetadata"):
        context = Context()
        run(getattr(gateway, method)(b"\xff", context))
        assert context.status == grpc.StatusCode.UNAUTHENTICATED
    for method, message in (("ModelInfer", infer), ("ModelReady", ready)):
        assert ask(method, message) == grpc.StatusCode.UNAUTHENTICATED
        assert ask(method, message, **key("b")) == grpc.StatusCode.PERMISSION_DENIED
        assert ask(method, message, **key("a")) is None
    assert ask("ServerLive", theirs.ServerLiveRequest()) is None
    assert ask("ServerReady", theirs.ServerReadyRequest()) is None
