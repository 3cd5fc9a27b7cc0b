"""Bad requests over HTTP: each gets its status and the one JSON shape, and harms nobody else."""

import json
import struct

import pytest
from starlette.testclient import TestClient

from serve_app.protocols import model_application
from tests.unit import fake_model

JSON = {"content-type": "application/json"}
BINARY = {"content-type": "application/octet-stream"}
LENGTH = "inference-header-content-length"


@pytest.fixture(scope="module")
def client():
    fake = fake_model.service()
    with TestClient(model_application(fake.engine), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def embedder():
    fake = fake_model.embedding_service()
    with TestClient(model_application(fake.engine), raise_server_exceptions=False) as client:
        yield client


def require_error(response, status):
    """Check the one shape of errors; return the sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = json.loads(response.content, parse_constant=pytest.fail)
    assert list(document)[:2] == ["error", "code"]
    assert isinstance(document["error"], str)
    assert document["error"]
    assert isinstance(document["code"], str)
    assert document["code"] != "internal_error"
    assert "Traceback" not in document["error"]
    return document["error"]


def require_good_answer(client):
    response = client.post("/predict", json={"text": "a good one"})
    assert (response.status_code, response.json()["label"]) == (200, "a")


def tensor(**changes):
    return {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]} | changes


def infer_body(**changes):
    return {"inputs": [tensor()]} | changes


def element(text):
    return struct.pack("<I", len(text)) + text


def binary_request(chunk, size=None, shape=(1,), header=None):
    """Return body and headers of a request whose tensor follows the JSON."""
    parameters = {"binary_data_size": len(chunk) if size is None else size}
    document = tensor(shape=list(shape), parameters=parameters)
    del document["data"]
    head = json.dumps({"inputs": [document]}).encode()
    return head + chunk, BINARY | {LENGTH: str(len(head)) if header is None else header}


def bad_json(name, document, status=422):
    return pytest.param(json.dumps(document).encode(), JSON, status, id=name)


def bad_bytes(name, body, status=400, headers=JSON):
    return pytest.param(body, headers, status, id=name)


BAD_PREDICTIONS = [
    bad_bytes("broken JSON", b'{"text": "a"'),
    bad_bytes("empty body", b""),
    bad_bytes("blank body", b" \n"),
    bad_bytes("invalid UTF-8", b'{"text": "\xff\xfe"}'),
    bad_bytes("half a surrogate pair", b'{"text": "\\ud800"}'),
    bad_bytes("deep nesting", b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    bad_bytes("deep nesting left open", b"[" * 100_000),
    bad_bytes("two documents", b'{"text": "a"}{"text": "b"}'),
    bad_bytes("NaN as text", b'{"text": NaN}', 422),
    bad_bytes("NaN as parameter", b'{"text": "a", "parameters": {"top_k": NaN}}', 422),
    bad_bytes("huge number as parameter", b'{"text": "a", "parameters": {"top_k": 1e999}}', 422),
    bad_json("a list", ["a"]),
    bad_json("a string", "a"),
    bad_json("null", None),
    bad_json("text is a number", {"text": 1}),
    bad_json("text is null", {"text": None}),
    bad_json("text is true", {"text": True}),
    bad_json("text is a list", {"text": ["a"]}),
    bad_json("text is empty", {"text": ""}),
    bad_json("text is blank", {"text": " \n\t"}),
    bad_json("text is too long", {"text": "word " * 50}),
    bad_json("neither text nor texts", {}),
    bad_json("text and texts", {"text": "a", "texts": ["a"]}),
    bad_json("texts is a string", {"texts": "a"}),
    bad_json("texts is empty", {"texts": []}),
    bad_json("texts has a number", {"texts": ["a", 1]}),
    bad_json("texts has an empty string", {"texts": ["a", ""]}),
    bad_json("300 texts", {"texts": ["a"] * 300}),
    bad_json("unknown field", {"text": "a", "txet": "b"}),
    bad_json("another model", {"text": "a", "model": "other"}),
    bad_json("model is a number", {"text": "a", "model": 1}),
    bad_json("unknown parameter", {"text": "a", "parameters": {"nope": 1}}),
    bad_json("parameter with a bad value", {"text": "a", "parameters": {"top_k": 0}}),
    bad_json("parameter of a wrong type", {"text": "a", "parameters": {"top_k": "two"}}),
    bad_json("parameter is null", {"text": "a", "parameters": {"top_k": None}}),
    bad_json("parameter is an object", {"text": "a", "parameters": {"top_k": {"a": 1}}}),
    bad_json("parameter with a long name", {"text": "a", "parameters": {"x" * 1000: 1}}),
    bad_json("parameters is a list", {"text": "a", "parameters": []}),
    bad_json("3 MB", {"text": "x" * 3_000_000}, 413),
    bad_bytes("form encoding", b"text=a", 415, {"content-type": "application/x-www-form-urlencoded"}),
    bad_bytes("plain text", b"a", 415, {"content-type": "text/plain"}),
    bad_bytes("binary without its header", b'{"text": "a"}', 415, BINARY),
    bad_bytes("compressed, and cut short", b"\x1f\x8b\x08", 400, JSON | {"content-encoding": "gzip"}),
    bad_bytes("compressed in another way", b"\x1f\x8b\x08", 415, JSON | {"content-encoding": "br"}),
]

BAD_INFERENCES = [
    bad_bytes("broken JSON", b"{"),
    bad_bytes("a list", b"[]", 422),
    bad_json("no inputs", {}),
    bad_json("empty inputs", {"inputs": []}),
    bad_json("two inputs", {"inputs": [tensor(), tensor(name="b")]}),
    bad_json("inputs is an object", {"inputs": tensor()}),
    bad_json("input without a name", {"inputs": [{"datatype": "BYTES", "shape": [1], "data": ["a"]}]}),
    bad_json("FP32", {"inputs": [tensor(datatype="FP32", data=[1.5])]}),
    bad_json("too few elements", {"inputs": [tensor(shape=[2])]}),
    bad_json("too many elements", {"inputs": [tensor(data=["a", "b"])]}),
    bad_json("negative shape", {"inputs": [tensor(shape=[-1])]}),
    bad_json("twice negative shape", {"inputs": [tensor(shape=[-1, -1])]}),
    bad_json("empty shape", {"inputs": [tensor(shape=[])]}),
    bad_json("shape of fractions", {"inputs": [tensor(shape=[1.5])]}),
    bad_json("shape of nine dimensions", {"inputs": [tensor(shape=[1] * 9)]}),
    bad_json("huge shape", {"inputs": [tensor(shape=[10**18] * 8)]}),
    bad_json("no element", {"inputs": [tensor(shape=[0], data=[])]}),
    bad_json("data is a string", {"inputs": [tensor(data="a")]}),
    bad_json("data has a number", {"inputs": [tensor(data=[1])]}),
    bad_json("data has an object", {"inputs": [tensor(data=[{"a": "b"}])]}),
    bad_json("data is missing", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]}),
    bad_json("unknown output", infer_body(outputs=[{"name": "nope"}])),
    bad_json("output without a name", infer_body(outputs=[{}])),
    bad_json("unknown parameter", infer_body(parameters={"nope": 1})),
    bad_json("id is a number", infer_body(id=7)),
    bad_bytes("header length beyond the body", b"{}", headers=BINARY | {LENGTH: "99"}),
    bad_bytes("header length is a word", b"{}", headers=BINARY | {LENGTH: "two"}),
    bad_bytes("header length is negative", b"{}", headers=BINARY | {LENGTH: "-1"}),
    bad_bytes("header length is empty", b"{}", headers=BINARY | {LENGTH: ""}),
    bad_bytes("header length has 5000 digits", b"{}", headers=BINARY | {LENGTH: "9" * 5000}),
    bad_json("no shape", {"inputs": [{"name": "text", "datatype": "BYTES", "data": ["a"]}]}),
]

BAD_EMBEDDINGS = [
    bad_bytes("broken JSON", b"{"),
    bad_bytes("a list", b'["a"]', 422),
    bad_json("no inputs", {}),
    bad_json("empty inputs", {"inputs": []}),
    bad_json("inputs is null", {"inputs": None}),
    bad_json("inputs is a number", {"inputs": 1}),
    bad_json("inputs are token ids", {"inputs": [101, 102]}),
    bad_json("inputs are pairs", {"inputs": [["a", "b"]]}),
    bad_json("an input is empty", {"inputs": ["a", ""]}),
    bad_json("an input is too long", {"inputs": ["a", "word " * 50]}),
    bad_json("300 inputs", {"inputs": ["a"] * 300}),
    bad_json("truncate is a word", {"inputs": "a", "truncate": "yes"}),
    bad_json("normalize is a number", {"inputs": "a", "normalize": 1}),
    bad_json("dimensions, which are not supported", {"inputs": "a", "dimensions": 8}),
    bad_bytes("binary", b"{}", 415, BINARY),
]

# The tensor follows the JSON.
BAD_BINARY_INFERENCES = {
    "an element is cut short": (binary_request(element(b"abc")[:-1]), 400),
    "a length is cut short": (binary_request(element(b"a") + b"\x01\x00", shape=(2,)), 400),
    "an element is longer than all": (binary_request(b"\xff\xff\xff\xffa"), 400),
    "the size says more than there is": (binary_request(element(b"a"), size=99), 400),
    "the size says less than there is": (binary_request(element(b"a"), size=0), 400),
    "the size is negative": (binary_request(element(b"a"), size=-1), 422),
    "the size is a word": (binary_request(element(b"a"), size="5"), 422),
    "the size is huge": (binary_request(element(b"a"), size=10**30), 400),
    "an element is not UTF-8": (binary_request(element(b"\xff\xfe")), 422),
    "an element is empty": (binary_request(element(b"")), 422),
    "there are fewer elements than the shape says": (binary_request(element(b"a"), shape=(2,)), 422),
    "there are more elements than the shape says": (binary_request(element(b"a") * 2), 422),
    "the JSON ends too early": (binary_request(element(b"a"), header="5"), 400),
}

# Shown values are cut: an error must not send a megabyte back.
LONG = "x" * 100_000
LONG_VALUES = {
    "model": ("/predict", {"text": "a", "model": LONG}),
    "field": ("/predict", {"text": "a", LONG: 1}),
    "parameter": ("/predict", {"text": "a", "parameters": {LONG: 1}}),
    "parameter value": ("/predict", {"text": "a", "parameters": {"top_k": LONG}}),
    "infer parameter": ("/infer", infer_body(parameters={LONG: 1})),
    "datatype": ("/infer", {"inputs": [tensor(datatype=LONG)]}),
    "input": ("/infer", {"inputs": [tensor(), tensor(name=LONG)]}),
    "output": ("/infer", infer_body(outputs=[{"name": LONG}])),
    "element": ("/infer", {"inputs": [tensor(data=[{LONG: LONG}])]}),
}


@pytest.mark.parametrize(("body", "headers", "status"), BAD_PREDICTIONS)
def test_a_bad_prediction_request_is_the_clients_error_and_harms_nobody(client, body, headers, status):
    require_error(client.post("/predict", content=body, headers=headers), status)
    require_good_answer(client)


@pytest.mark.parametrize(("body", "headers", "status"), BAD_INFERENCES)
def test_a_bad_inference_request_is_the_clients_error_and_harms_nobody(client, body, headers, status):
    require_error(client.post("/infer", content=body, headers=headers), status)
    require_good_answer(client)


@pytest.mark.parametrize(("body", "headers", "status"), BAD_EMBEDDINGS)
def test_a_bad_embed_request_is_the_clients_error_and_harms_nobody(embedder, body, headers, status):
    require_error(embedder.post("/embed", content=body, headers=headers), status)
    assert embedder.post("/embed", json={"inputs": "a"}).status_code == 200


@pytest.mark.parametrize("document", [{"inputs": {LONG: 1}}, {"inputs": "a", LONG: 1}])
def test_an_error_of_embed_shows_a_long_value_shortened(embedder, document):
    assert len(require_error(embedder.post("/embed", json=document), 422)) < 1000


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"inputs": 1}, "inputs: got 1; must be a text or a list of texts"),
        ({"inputs": ["a", 1]}, "inputs.1: Input should be a valid string"),
    ],
)
def test_an_error_of_embed_names_the_member(embedder, document, sentence):
    assert require_error(embedder.post("/embed", json=document), 422) == sentence


def test_a_model_of_another_task_does_not_embed(client):
    sentence = require_error(client.post("/embed", json={"inputs": "a"}), 422)
    assert sentence.startswith("sentiment is an endpoint of text-classification; ")


@pytest.mark.parametrize(
    ("request_", "status"), BAD_BINARY_INFERENCES.values(), ids=BAD_BINARY_INFERENCES.keys()
)
def test_a_bad_binary_tensor_is_the_clients_error_and_harms_nobody(client, request_, status):
    body, headers = request_
    require_error(client.post("/infer", content=body, headers=headers), status)
    require_good_answer(client)


@pytest.mark.parametrize(("path", "document"), LONG_VALUES.values(), ids=LONG_VALUES.keys())
def test_an_error_shows_a_long_value_shortened(client, path, document):
    sentence = require_error(client.post(path, json=document), 422)
    assert len(sentence) < 1000


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({}, 'give either "text" or "texts"'),
        ({"text": "a", "txet": 1}, "txet: unknown field"),
        ({"texts": ["a", 1]}, "texts[1]: got 1; must be a text"),
        ({"text": "a", "model": "b"}, "model: got 'b', and this is 'sentiment'"),
        ({"texts": ["a", "b " * 20]}, "texts[1]: the text has 20 tokens and this endpoint takes 10"),
    ],
)
def test_an_error_names_the_field(client, document, sentence):
    assert require_error(client.post("/predict", json=document), 422).startswith(sentence)


@pytest.mark.parametrize("value", [None, {"a": 1}, [1]])
def test_a_parameter_that_no_task_could_take_is_named_as_the_client_wrote_it(client, value):
    document = {"text": "a", "parameters": {"top_k": value}}
    assert require_error(client.post("/predict", json=document), 422).startswith("parameters.top_k: ")


def test_a_limit_comes_as_a_number_too(client):
    error = client.post("/predict", json={"text": "a " * 20}).json()
    assert (error["code"], error["length"], error["limit"]) == ("input_too_long", 20, 10)


@pytest.mark.parametrize("path", ["/predict", "/infer", "/embed"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_refused_with_the_one_that_is_allowed(client, path, method):
    response = client.request(method, path)
    sentence = require_error(response, 405)
    assert sentence == f"{path} does not take {method}; it takes POST"
    assert response.headers["allow"] == "POST"


def test_posting_to_a_page_is_refused_with_what_is_allowed(client):
    response = client.post("/ready", json={})
    require_error(response, 405)
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize("path", ["/nope", "/predict/more", "/../etc", "/%2e%2e", "/predict%00", "/PREDICT"])
def test_an_unknown_path_is_refused_by_its_name(client, path):
    assert require_error(client.post(path, json={"text": "a"}), 404).startswith("there is nothing at /")


@pytest.mark.parametrize("host", ["a/b", "x?y", "x#y", "[::"])
def test_a_strange_host_header_confuses_nobody(client, host):
    response = client.post("/predict", json={"text": "a"}, headers={"host": host})
    assert response.status_code == 200


def test_a_model_that_fails_is_not_the_clients_error_and_its_traceback_stays_here(client):
    response = client.post("/predict", json={"text": fake_model.BROKEN})
    assert (response.status_code, response.json()["code"]) == (500, "model_failed")
    assert "no such index" not in response.text
    require_good_answer(client)


def test_a_fault_of_the_program_has_the_shape_of_errors_too(client):
    response = client.post("/predict", json={"text": fake_model.UNSPEAKABLE})
    assert (response.status_code, response.json().keys()) == (500, {"error", "code"})
    assert "no such label" not in response.text
    require_good_answer(client)


def test_a_full_replica_says_when_to_come_back():
    fake = fake_model.service(max_ongoing_requests=1, max_queued_requests=1)
    fake.engine._admission._requests = 2
    with TestClient(model_application(fake.engine)) as client:
        response = client.post("/predict", json={"text": "a"})
    require_error(response, 429)
    assert response.headers["retry-after"] == "1"
