"""Forty kinds of bad bodies for each route that generates: errors in the protocol's shape, never a 500."""

import json

import pytest
from starlette.testclient import TestClient

from serve_app.protocols import model_application
from tests.unit.fake_generation import FakeEngine
from tests.unit.test_client_protocols import WRONG_BODIES, WRONG_VALUES

OPENAI = {
    "model": "chat", "stream": False, "n": 1, "max_tokens": 2, "temperature": 0.5, "top_p": 0.5, "top_k": 3,
    "seed": 1, "stop": ["a"], "presence_penalty": 0.5, "frequency_penalty": 0.5, "min_p": 0.5,
    "repetition_penalty": 1.5, "ignore_eos": False, "stop_token_ids": [1], "stream_options": {},
}  # fmt: skip
MESSAGE = {"role": "user", "content": "a"}
GOOD_BODIES = {
    "/v1/chat/completions": {
        **OPENAI, "messages": [MESSAGE], "logprobs": True, "top_logprobs": 2, "max_completion_tokens": 3,
        "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "modalities": ["text"],
    },
    "/v1/completions": {**OPENAI, "prompt": ["a"], "logprobs": 2, "echo": False, "best_of": 1},
    "/generate": {"inputs": "a", "parameters": {"max_new_tokens": 2}, "stream": False, "options": {}},
    "/generate_stream": {"inputs": "a", "parameters": {"max_new_tokens": 2}, "stream": True},
    "/generate?": {"text_input": "a", "parameters": {"max_tokens": 2}, "stream": False, "id": "1"},
    "": {"inputs": "a", "parameters": {"max_new_tokens": 2}, "stream": True},
}  # fmt: skip
OF_MESSAGES = [
    [], [{}], ["a"], [None], [{"role": "user"}], [{"content": "a"}], [{"role": "robot", "content": "a"}],
    [{"role": "user", "content": 1}], [{"role": "user", "content": None}], [{**MESSAGE, "nope": 1}],
    [{"role": "user", "content": [{}]}], [{"role": "user", "content": ["a"]}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "text", "text": 1}]}],
    [{**MESSAGE, "tool_calls": ["a"]}], [{**MESSAGE, "tool_calls": {}}], [{**MESSAGE, "name": 1}],
    [[MESSAGE]], [{**MESSAGE, "function_call": {"name": "f"}}], [{**MESSAGE, "audio": {"id": "1"}}],
]  # fmt: skip
OF_PARAMETERS = [
    {name: value}
    for name in ("temperature", "top_k", "top_p", "seed", "stop", "repetition_penalty", "details")
    for value in ("a", {"a": 1}, [[1]], -7.5)
] + [{"max_new_tokens": value} for value in (0, -1, 1.5, "1", 10**9, True, [1])]  # fmt: skip
# Null is as absent. The others are values that a member may well have.
ALLOWED = {
    ("stream", "true"), ("echo", "true"), ("logprobs", "true"), ("ignore_eos", "true"), ("stop", "empty"),
    ("stop_token_ids", "empty"), ("tools", "empty"), ("tool_choice", "object"), ("modalities", "empty"),
    ("temperature", "number"), ("repetition_penalty", "number"), ("options", "object"),
    ("seed", "negative"),
}  # fmt: skip
REQUIRED = ("messages", "prompt", "inputs", "text_input")


def bad_bodies(good):
    yield from WRONG_BODIES.items()
    for name in good:
        for kind, value in WRONG_VALUES.items():
            if (name, kind) not in ALLOWED and (kind != "null" or name in REQUIRED):
                yield f"{name} is {kind}", json.dumps({**good, name: value}).encode()
    yield "unknown member", json.dumps({**good, "nope": 1}).encode()
    yield "another model", json.dumps({**good, "model": "other"}).encode()
    if "messages" in good:
        for messages in OF_MESSAGES:
            yield f"messages are {messages}", json.dumps({**good, "messages": messages}).encode()
    if "parameters" in good:
        for parameters in OF_PARAMETERS:
            yield f"parameters are {parameters}", json.dumps({**good, "parameters": parameters}).encode()


@pytest.fixture(scope="module")
def http():
    with TestClient(model_application(FakeEngine())) as client:
        yield client


@pytest.mark.parametrize("path", GOOD_BODIES)
def test_bad_bodies_are_errors_in_the_protocol_s_shape(http, path):
    good = GOOD_BODIES[path]
    bodies = dict(bad_bodies(good))
    assert len(bodies) >= 40
    for kind, body in bodies.items():
        response = http.post(path, content=body, headers={"content-type": "application/json"})
        assert 400 <= response.status_code < 500, (kind, response.text)
        assert len(response.content) < 2000, kind
        error = response.json()["error"]
        if path.startswith("/v1"):
            assert (error["type"], bool(error["message"])) == ("invalid_request_error", True), kind
        else:
            assert isinstance(error, str), kind
    assert http.post(path, json=good).status_code == 200
    assert http.put(path, json=good).status_code == 405


@pytest.mark.parametrize("path", GOOD_BODIES)
def test_members_that_are_null_are_as_absent(http, path):
    good = GOOD_BODIES[path]
    if path.startswith("/v1"):
        body = {name: value if name in REQUIRED else None for name, value in good.items()}
        assert http.post(path, json=body).status_code == 200
