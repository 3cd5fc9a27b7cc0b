"""Streamed answers as a server hands them out: comments while nothing comes, and clients that leave."""

import asyncio
import json

import pytest

from serve_app.http import app as app_module
from serve_app.http import disconnect
from serve_app.http.errors import PROXY_HEADER
from serve_app.http.streaming import COMMENT, StreamedReply, StreamedResponse
from serve_app.protocols import model_application
from tests.harness.builders import run, until
from tests.unit.fake_generation import HELLO, FakeEngine

BODY = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture(autouse=True)
def watched_soon(monkeypatch):
    monkeypatch.setattr(disconnect, "WATCHED_AFTER_SECONDS", 0.01)


class Client:
    """One connection, as a server hands it to an application. `slow` is how long each `send` takes."""

    def __init__(self, body=None, headers=(), slow=0.0):
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [(b"content-type", b"application/json"), *headers],
            "query_string": b"",
        }
        self.messages = [{"type": "http.request", "body": json.dumps(body or BODY).encode()}]
        self.gone = asyncio.Event()
        self.sent = []
        self.slow = slow

    async def ask(self, engine):
        await model_application(engine)(self.scope, self.receive, self.send)

    async def receive(self):
        if self.messages:
            return self.messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await asyncio.sleep(self.slow)
        self.sent.append(message)

    @property
    def chunks(self):
        return [message["body"] for message in self.sent[1:]]


HEADERS = [[], [(PROXY_HEADER.encode(), b"?1")]]


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("body", [BODY, {**BODY, "stream": False}, {**BODY, "n": 3}])
def test_a_client_that_leaves_before_the_first_part_ends_the_generation(headers, body):
    async def scenario():
        engine, client = FakeEngine([asyncio.Event(), *HELLO]), Client(body, headers)
        asked = asyncio.create_task(client.ask(engine))
        await until(lambda: engine.generations and engine.generations[-1].begun.is_set())
        client.gone.set()
        await asyncio.wait_for(asked, 5)
        assert all(generation.closed for generation in engine.generations)
        return client.sent[0]["status"]

    assert run(scenario()) == 499


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("number", [1, 2])
def test_a_client_that_leaves_in_the_middle_ends_the_generation(headers, number):
    async def scenario():
        engine, client = FakeEngine([HELLO[0], asyncio.Event()]), Client({**BODY, "n": number}, headers)
        asked = asyncio.create_task(client.ask(engine))
        await until(lambda: len(client.chunks) >= 2 * number)
        client.gone.set()
        await asyncio.wait_for(asked, 5)
        assert all(generation.closed for generation in engine.generations)
        return client.sent[-1]["more_body"]

    assert run(scenario())


def test_a_client_that_leaves_while_it_gets_a_piece_ends_the_generation():
    async def scenario():
        engine, client = FakeEngine(), Client(slow=0.05)
        asked = asyncio.create_task(client.ask(engine))
        await until(lambda: client.chunks)
        client.gone.set()
        await asyncio.wait_for(asked, 5)
        return engine.generations[0].closed, b"[DONE]" in b"".join(client.chunks)

    assert run(scenario()) == (True, False)


def test_a_request_that_the_server_cancels_ends_the_generation():
    async def scenario():
        engine, client = FakeEngine([HELLO[0], asyncio.Event()]), Client()
        asked = asyncio.create_task(client.ask(engine))
        await until(lambda: len(client.chunks) >= 2)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        return engine.generations[0].closed

    assert run(scenario())


def test_comments_come_while_nothing_else_does(monkeypatch):
    monkeypatch.setattr(app_module, "StreamedResponse", lambda reply: StreamedResponse(reply, 0.05))

    async def scenario():
        engine, client = FakeEngine([HELLO[0], 0.18, *HELLO[1:]]), Client()
        await client.ask(engine)
        return client.chunks

    chunks = run(scenario())
    assert chunks.count(COMMENT) in (2, 3)
    assert chunks.index(COMMENT) == 2
    assert b"[DONE]" in chunks[-2]


def test_no_comment_comes_beside_pieces_or_into_one(monkeypatch):
    monkeypatch.setattr(app_module, "StreamedResponse", lambda reply: StreamedResponse(reply, 0.05))

    async def scenario():
        engine, client = FakeEngine([each for part in HELLO for each in (part, 0.02)]), Client(slow=0.1)
        await client.ask(engine)
        return client.chunks

    assert COMMENT not in run(scenario())


def test_nothing_is_left_behind():
    async def scenario():
        before = asyncio.all_tasks()
        await Client().ask(FakeEngine())
        await asyncio.sleep(0.05)
        return asyncio.all_tasks() - before

    assert run(scenario()) == set()


def test_pieces_can_be_had_at_once_and_are_given_up_before_the_first():
    closed = []

    async def chunks():
        yield b"a"
        yield b"b"

    async def close():
        closed.append(True)

    async def scenario():
        whole = await StreamedReply(chunks(), close).whole()
        await StreamedReply(chunks(), close).aclose()
        return whole.body, whole.content_type

    assert run(scenario()) == (b"ab", "text/event-stream")
    assert closed == [True, True]
