"""Streamed answers through the real HAProxy: piece by piece, and ended when the client leaves."""

import asyncio
import json
import time
from contextlib import ExitStack, contextmanager

import pytest

from serve_app.contract import ModelArgs, Task
from serve_app.http import app as app_module
from serve_app.http.streaming import COMMENT, StreamedResponse
from serve_app.protocols import model_application
from tests.harness.asgi import served
from tests.serve.proxied import Replica, backend, running
from tests.unit.fake_generation import HELLO, FakeEngine
from tests.unit.http_double import serving

CHAT = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "stream": True}
ARGS = ModelArgs(name="a", uri="file:///models/a", task=Task.TEXT_GENERATION)
PAUSE = 0.4


@contextmanager
def replica(engine):
    """Run a server like a replica's, which answers for `engine` below its prefix; yield its address."""

    async def prefixed(scope, receive, send):
        path = scope["path"].removeprefix("/v2/models/a") or "/"
        if scope["method"] == "GET":
            # The proxy asks whether the replica lives.
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await model_application(engine)({**scope, "path": path}, receive, send)

    with served(prefixed) as url:
        yield url


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """The engine of a model "a", and a client of the proxy in front of it."""
    engine = FakeEngine(args=ARGS)
    with ExitStack() as stack:
        model = stack.enter_context(replica(engine))
        gateway, fallback = (
            stack.enter_context(serving(Replica, name=name)) for name in ("gateway", "fallback")
        )
        backends = {
            "gateway": backend("gateway", "/", [gateway], fallback),
            "a": backend("a", "/v2/models/a", [model], fallback),
        }
        client, _, _ = stack.enter_context(running(tmp_path_factory.mktemp("streams"), backends))
        yield engine, client


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/a/v1/chat/completions"])
def test_pieces_come_through_as_they_are_made(proxied, path):
    engine, client = proxied
    engine.parts = [each for part in HELLO for each in (part, PAUSE)][:-1]
    times, data = [], []
    with client.stream("POST", path, json=CHAT) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line:
                times.append(time.monotonic())
                data.append(line.removeprefix("data: "))
    assert data[-1] == "[DONE]"
    texts = [json.loads(each)["choices"][0]["delta"].get("content") for each in data[:-1]]
    assert "".join(filter(None, texts)) == "Hello there \U0001f44b"
    # The role and the first word come at once, then each word after its pause.
    waited = [later - earlier for earlier, later in zip(times[1:], times[2:], strict=False)]
    assert min(waited[:3]) > PAUSE / 2


def test_a_client_that_leaves_ends_the_generation(proxied, monkeypatch):
    engine, client = proxied
    monkeypatch.setattr(app_module, "StreamedResponse", lambda reply: StreamedResponse(reply, 0.1))
    engine.parts = [HELLO[0], asyncio.Event()]
    with client.stream("POST", "/v1/chat/completions", json=CHAT) as response:
        # HAProxy notices when it has something for the client that is gone.
        for chunk in response.iter_bytes():
            if COMMENT in chunk:
                break
    generation = engine.generations[-1]
    until = time.monotonic() + 5
    while not generation.closed and time.monotonic() < until:
        time.sleep(0.02)
    assert generation.closed
