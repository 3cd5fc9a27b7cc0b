"""The OpenAPI document says what the applications do: routes, requests, answers, errors."""

import json
from types import SimpleNamespace

import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from serve_app.contract import Task, UserConfig
from serve_app.engine.batch_engine import BatchEngine
from serve_app.gateway.application import gateway_application
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.operations import OPERATIONS
from serve_app.gateway.relay import Relay
from serve_app.parameters import PARAMETERS
from serve_app.protocols import model_application
from tests.unit import fake_model
from tests.unit.test_client_protocols import FakeClassifier
from tests.unit.test_http_errors import BAD_PREDICTIONS, infer_body
from tests.unit.test_model_index import FakeServe, application

PREFIX = "/v2/models/{name}"


def gateway():
    index = ModelIndex(FakeServe(sentiment=application()))
    return gateway_application(index, Relay(index))


def routes_of(app, prefix=""):
    """Return (path, method) of each route of an application."""
    return {
        (prefix + route.path.rstrip("/") if prefix else route.path, method)
        for route in app._app.routes
        for method in route.methods - {"HEAD"}
    }


@pytest.fixture(scope="module")
def document():
    return TestClient(gateway()).get("/openapi.json").json()


@pytest.fixture(scope="module")
def model():
    with TestClient(model_application(fake_model.service().engine)) as client:
        yield client


def check(document, schema, instance):
    jsonschema.validate(instance, {**schema, "components": document["components"]})


def schema_of(document, path, method="get", status="200"):
    return document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]


def test_it_is_an_openapi_document(document):
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_it_has_each_route_of_the_gateway_and_no_other(document):
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert described == routes_of(gateway())


def test_each_route_of_a_model_is_in_it(document):
    app = model_application(fake_model.service().engine)
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert routes_of(app, PREFIX) <= described


def test_each_route_has_a_sentence_of_its_own():
    assert OPERATIONS.keys() == {(method, path) for path, method in routes_of(gateway())}


def test_each_task_has_its_parameters(document):
    schemas = document["components"]["schemas"]
    assert set(document["x-tasks"]) == set(Task)
    for task, said in document["x-tasks"].items():
        schema = schemas[said["parameters"]["$ref"].rpartition("/")[2]]
        assert schema["properties"].keys() == PARAMETERS[Task(task)].model_fields.keys()
        assert "null" not in json.dumps(schema)


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/ready", "/v2/models", "/v1/models", "/v1/models/{name}", "/v2/models/{name}/ready"],
)
def test_the_gateway_answers_as_it_says(document, path):
    answer = TestClient(gateway()).get(path.format(name="sentiment"))
    assert answer.status_code == 200
    check(document, schema_of(document, path), answer.json())


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("predict", {"text": "one"}),
        ("predict", {"texts": ["one", "two"], "parameters": {"top_k": 2}}),
        ("infer", infer_body()),
    ],
)
def test_a_model_takes_and_answers_what_it_says(document, model, verb, body):
    path = f"{PREFIX}/{verb}"
    wanted = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    check(document, wanted, body)
    answer = model.post(f"/{verb}", json=body)
    assert answer.status_code == 200
    check(document, schema_of(document, path, "post"), answer.json())


def test_a_model_describes_itself_as_it_says(document, model):
    check(document, schema_of(document, PREFIX), model.get("/").json())


def classifying_service():
    return SimpleNamespace(engine=BatchEngine(fake_model.ARGS, FakeClassifier(), UserConfig()))


@pytest.mark.parametrize(
    ("service", "verb", "body"),
    [
        (classifying_service, "predict", {"inputs": ["one", "two"]}),
        (classifying_service, "", {"inputs": "one"}),
        (fake_model.embedding_service, "embed", {"inputs": ["one", "two"]}),
        (fake_model.embedding_service, "v1/embeddings", {"model": "minilm", "input": "one"}),
        (fake_model.embedding_service, "v1/embeddings", {"input": "one", "encoding_format": "base64"}),
        (fake_model.ranking_service, "predict", {"query": "a", "texts": ["b", "c d"]}),
        (fake_model.ranking_service, "rerank", {"query": "a", "texts": ["b", "c d"]}),
        (fake_model.ranking_service, "v2/rerank", {"query": "a", "documents": ["b", "c d"], "top_n": 1}),
    ],
)
def test_each_protocol_takes_and_answers_what_it_says(document, service, verb, body):
    path = f"{PREFIX}/{verb}".rstrip("/")
    wanted = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    check(document, wanted, body)
    with TestClient(model_application(service().engine)) as client:
        answer = client.post(f"/{verb}", json=body)
    assert answer.status_code == 200, answer.text
    check(document, schema_of(document, path, "post"), answer.json())


@pytest.mark.parametrize("path", ["rerank", "embed", "v1/embeddings"])
def test_errors_have_the_shape_of_their_protocol(document, model, path):
    answer = model.post(f"/{path}", json={"inputs": "a"})
    assert answer.status_code == 422
    check(document, schema_of(document, f"{PREFIX}/{path}", "post", "422"), answer.json())


def test_a_model_says_what_it_is_as_it_says(document, model):
    check(document, schema_of(document, f"{PREFIX}/info"), model.get("/info").json())


@pytest.mark.parametrize(("body", "headers", "status"), BAD_PREDICTIONS)
def test_each_error_of_a_request_is_in_it(document, model, body, headers, status):
    answer = model.post("/predict", content=body, headers=headers)
    check(document, schema_of(document, f"{PREFIX}/predict", "post", str(status)), answer.json())


@pytest.mark.parametrize("parameters", [{"nope": 1}, {"top_k": -1}, {"top_k": None}, {"temperature": 0}])
def test_it_refuses_parameters_that_no_task_takes(document, parameters):
    wanted = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    with pytest.raises(jsonschema.ValidationError):
        check(document, wanted, {"model": "a", "text": "b", "parameters": parameters})
