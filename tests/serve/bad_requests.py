"""Requests that no model can answer, each with the status that it must get."""

import json

import httpx

JSON = {"content-type": "application/json"}


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


# name, body, headers, status
BAD_PREDICT_REQUESTS = [
    ("broken JSON", b'{"text": "a"', JSON, 400),
    ("empty body", b"", JSON, 400),
    ("invalid UTF-8", b'{"text": "\xff\xfe"}', JSON, 400),
    ("NaN", b'{"text": "a", "parameters": {"top_k": NaN}}', JSON, (400, 422)),
    ("deep nesting", b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, 400),
    ("a JSON list", b'["a"]', JSON, 422),
    ("a JSON string", b'"a"', JSON, 422),
    ("text is a number", _json({"text": 1}), JSON, 422),
    ("text is null", _json({"text": None}), JSON, 422),
    ("text is a list", _json({"text": ["a"]}), JSON, 422),
    ("text is empty", _json({"text": ""}), JSON, 422),
    ("text is blank", _json({"text": " \n\t"}), JSON, 422),
    ("no text", _json({}), JSON, 422),
    ("text and texts", _json({"text": "a", "texts": ["a"]}), JSON, 422),
    ("texts is empty", _json({"texts": []}), JSON, 422),
    ("texts has a number", _json({"texts": ["a", 1]}), JSON, 422),
    ("too many texts", _json({"texts": ["a"] * 300}), JSON, 422),
    ("unknown field", _json({"text": "a", "txet": "b"}), JSON, 422),
    ("unknown parameter", _json({"text": "a", "parameters": {"nope": 1}}), JSON, 422),
    ("parameter of a wrong type", _json({"text": "a", "parameters": {"top_k": "two"}}), JSON, 422),
    ("parameters is a list", _json({"text": "a", "parameters": []}), JSON, 422),
    ("too long text", _json({"text": "word " * 5000}), JSON, 422),
    ("10 MB body", _json({"text": "x" * 10_000_000}), JSON, 413),
    ("form encoding", b"text=a", {"content-type": "application/x-www-form-urlencoded"}, 415),
    ("plain text", b"a", {"content-type": "text/plain"}, 415),
    ("compressed, and cut short", b"\x1f\x8b\x08", {**JSON, "content-encoding": "gzip"}, 400),
    ("compressed in another way", b"\x1f\x8b\x08", {**JSON, "content-encoding": "br"}, 415),
]

_INPUT = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}

BAD_INFER_REQUESTS = [
    ("broken JSON", b"{", JSON, 400),
    ("no inputs", _json({}), JSON, 422),
    ("empty inputs", _json({"inputs": []}), JSON, 422),
    ("two inputs", _json({"inputs": [_INPUT, {**_INPUT, "name": "b"}]}), JSON, 422),
    ("numbers", _json({"inputs": [{**_INPUT, "datatype": "FP32", "data": [1.5]}]}), JSON, 422),
    ("numbers as text", _json({"inputs": [{**_INPUT, "data": [1]}]}), JSON, 422),
    ("wrong shape", _json({"inputs": [{**_INPUT, "shape": [2]}]}), JSON, 422),
    ("negative shape", _json({"inputs": [{**_INPUT, "shape": [-1]}]}), JSON, 422),
    ("no data", _json({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]}), JSON, 422),
    ("unknown output", _json({"inputs": [_INPUT], "outputs": [{"name": "nope"}]}), JSON, 422),
    ("header length beyond the body", b"{}", {**JSON, "inference-header-content-length": "99"}, 400),
    ("header length is a word", b"{}", {**JSON, "inference-header-content-length": "two"}, 400),
]


def assert_error(response: httpx.Response, status: int | tuple[int, ...]) -> None:
    """Check that the response is an error of the one shape, with one of the statuses."""
    statuses = status if isinstance(status, tuple) else (status,)
    assert response.status_code in statuses, response.text
    body = response.json()
    assert isinstance(body["error"], str)
    assert isinstance(body["code"], str)
    assert "Traceback" not in response.text
