"""KServe's V1 protocol on the fake models."""

import json

import pytest
from starlette.testclient import TestClient

from serve_app.protocols import model_application
from tests.unit import fake_model
from tests.unit.test_http_errors import JSON, require_error

PATH = "/v1:predict"


@pytest.fixture(scope="module")
def client():
    with TestClient(model_application(fake_model.service().engine)) as client:
        yield client


@pytest.fixture(scope="module")
def ranker():
    with TestClient(model_application(fake_model.ranking_service().engine)) as client:
        yield client


def predictions(client, **document):
    response = client.post(PATH, json=document)
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["predictions"]
    return response.json()["predictions"]


def test_instances_are_answered_in_their_order(client):
    answered = predictions(client, instances=["one", {"text": "two two"}])
    assert [prediction["label"] for prediction in answered] == ["one", "two"]
    assert [prediction["score"] for prediction in answered] == [0.5, 1.0]


def test_parameters_reach_the_model(client):
    [prediction] = predictions(client, instances=["a"], parameters={"top_k": 3})
    assert prediction["details"][0]["top_k"] == 3


def test_an_instance_may_be_a_pair(ranker):
    assert predictions(ranker, instances=[{"query": "q", "text": "a b"}]) == [{"score": 2}]


def test_where_the_model_has_no_number_there_is_null(client):
    response = client.post(PATH, json={"instances": [fake_model.NOT_A_NUMBER]})
    json.loads(response.content, parse_constant=pytest.fail)


BAD = {
    "no instances": ({}, 422),
    "null": ({"instances": None}, 422),
    "a text": ({"instances": "a"}, 422),
    "an object": ({"instances": {"text": "a"}}, 422),
    "none": ({"instances": []}, 422),
    "too many": ({"instances": ["a"] * 300}, 422),
    "a number": ({"instances": [1]}, 422),
    "a null": ({"instances": [None]}, 422),
    "a list": ({"instances": [["a"]]}, 422),
    "an empty object": ({"instances": [{}]}, 422),
    "an unknown name": ({"instances": [{"input": "a"}]}, 422),
    "a known and an unknown name": ({"instances": [{"text": "a", "input": "b"}]}, 422),
    "a number by name": ({"instances": [{"text": 1}]}, 422),
    "an empty text": ({"instances": [""]}, 422),
    "a blank text": ({"instances": [" "]}, 422),
    "a long text": ({"instances": ["word " * 50]}, 422),
    "an unknown member": ({"instances": ["a"], "signature_name": "b"}, 422),
    "an unknown parameter": ({"instances": ["a"], "parameters": {"nope": 1}}, 422),
    "a bad parameter": ({"instances": ["a"], "parameters": {"top_k": 0}}, 422),
    "parameters as a list": ({"instances": ["a"], "parameters": []}, 422),
    "a parameter that is an object": ({"instances": ["a"], "parameters": {"top_k": {}}}, 422),
    "a list as the body": (["a"], 422),
    "a text as the body": ("a", 422),
    "3 MB": ({"instances": ["x" * 3_000_000]}, 413),
}
BAD_BYTES = {
    "broken JSON": (b'{"instances": ["a"', JSON, 400),
    "no body": (b"", JSON, 400),
    "no UTF-8": (b'{"instances": ["\xff"]}', JSON, 400),
    "deep nesting": (b'{"instances": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", JSON, 400),
    "a form": (b"instances=a", {"content-type": "application/x-www-form-urlencoded"}, 415),
    "a broken compression": (b"\x1f\x8b", JSON | {"content-encoding": "gzip"}, 400),
    "an unknown compression": (b"a", JSON | {"content-encoding": "zstd"}, 415),
}


@pytest.mark.parametrize(("document", "status"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_the_clients_error(client, document, status):
    require_error(client.post(PATH, json=document), status)


@pytest.mark.parametrize(("body", "headers", "status"), BAD_BYTES.values(), ids=BAD_BYTES.keys())
def test_a_bad_body_is_the_clients_error(client, body, headers, status):
    require_error(client.post(PATH, content=body, headers=headers), status)


def test_a_model_that_fails_is_no_fault_of_the_client(client):
    response = client.post(PATH, json={"instances": [fake_model.BROKEN]})
    assert (response.status_code, response.json()["code"]) == (500, "model_failed")
