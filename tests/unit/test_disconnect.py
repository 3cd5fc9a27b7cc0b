"""Clients that close their connection before they are answered."""

import asyncio
import json

import pytest

from serve_app.http import disconnect
from serve_app.protocols import model_application
from tests.harness.builders import run, until
from tests.unit import fake_model


@pytest.fixture(autouse=True)
def watched_soon(monkeypatch):
    monkeypatch.setattr(disconnect, "WATCHED_AFTER_SECONDS", 0.01)


class Client:
    """One connection, as a server hands it to an application."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }

    def __init__(self, text):
        self.messages = [{"type": "http.request", "body": json.dumps({"text": text}).encode()}]
        self.gone = asyncio.Event()
        self.sent = []

    async def ask(self, engine):
        await model_application(engine)(self.scope, self.receive, self.send)

    async def receive(self):
        if self.messages:
            return self.messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]


def test_the_place_of_a_client_that_leaves_is_free():
    async def scenario():
        async with fake_model.serving() as (engine, model):
            first = await fake_model.fill(engine, model, 1)
            client = Client("waits")
            asked = asyncio.create_task(client.ask(engine))
            await until(lambda: engine._admission.requests == 2)
            client.gone.set()
            await asked
            assert engine._admission.requests == 1
            model.free.set()
            await asyncio.gather(*first)
            await engine.predict(["last"])
            return client.status, model.batches

    assert run(scenario()) == (499, [["held0"], ["last"]])


def test_a_client_that_waits_gets_its_answer():
    async def scenario():
        async with fake_model.serving() as (engine, model):
            first = await fake_model.fill(engine, model, 1)
            client = Client("waits")
            asked = asyncio.create_task(client.ask(engine))
            await asyncio.sleep(0.1)
            model.free.set()
            await asyncio.gather(*first, asked)
            return client.status, json.loads(client.sent[1]["body"])["label"]

    assert run(scenario()) == (200, "waits")


def test_nothing_watches_once_the_answer_is_there():
    async def scenario():
        async with fake_model.serving() as (engine, _):
            client = Client("quick")
            before = asyncio.all_tasks()
            await client.ask(engine)
            await asyncio.sleep(0.05)
            watching = [task for task in asyncio.all_tasks() - before if "watch" in repr(task)]
            return client.status, watching

    assert run(scenario()) == (200, [])
