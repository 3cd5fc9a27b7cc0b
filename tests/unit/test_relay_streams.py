"""Streamed answers through the gateway, by a double of Serve's handle."""

import asyncio

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from serve_app.gateway import relay as relay_module
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.relay import Relay
from serve_app.http.errors import ModelNotReadyError, OverloadedError, Reply, RequestTimeoutError
from serve_app.http.streaming import StreamedReply, StreamHead
from tests.harness.builders import run, until
from tests.unit.test_model_index import FakeServe, application

VERB = "v1/chat/completions"
HEAD = StreamHead()


class Items:
    """Imitates Serve's DeploymentResponseGenerator: the test puts items and errors in."""

    def __init__(self):
        self.queue = asyncio.Queue()
        self.cancelled = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        item = await self.queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def cancel(self):
        self.cancelled = True


class Handle:
    """Imitates Serve's handle of one model."""

    def __init__(self):
        self.responses = []
        self.stream = self

    def options(self, stream):
        assert stream
        return self

    def remote(self, verb, body, headers):
        self.responses.append(Items())
        return self.responses[-1]


@pytest.fixture(autouse=True)
def checked_often(monkeypatch):
    monkeypatch.setattr(relay_module, "CHECK_SECONDS", 0.01)


async def asked(*items, serve=None):
    """Return the request as a task, and what Serve's handle has for it."""
    handle = Handle()
    relay = Relay(ModelIndex(serve or FakeServe(a=application())), lambda name: handle)
    task = asyncio.create_task(relay.stream("a", VERB, b"{}", {}))
    await until(lambda: handle.responses)
    [response] = handle.responses
    for item in items:
        response.queue.put_nowait(item)
    return task, response


def test_a_reply_that_is_not_streamed_is_handed_on():
    reply = Reply(b"{}", "application/json", 422)

    async def scenario():
        task, response = await asked(reply)
        return await task, response.cancelled

    assert run(scenario()) == (reply, False)


def test_pieces_are_handed_on_as_they_come():
    async def scenario():
        task, response = await asked(HEAD, b"one")
        reply = await task
        assert isinstance(reply, StreamedReply)
        assert reply.head == HEAD
        assert await anext(reply.chunks) == b"one"
        response.queue.put_nowait(b"two")
        response.queue.put_nowait(StopAsyncIteration())
        rest = [chunk async for chunk in reply.chunks]
        await reply.aclose()
        return rest, response.cancelled

    assert run(scenario()) == ([b"two"], False)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), OverloadedError),
        (ActorDiedError(), ModelNotReadyError),
    ],
)
def test_an_error_before_the_head_is_one_of_the_request(error, ours):
    async def scenario():
        task, _ = await asked(error)
        with pytest.raises(ours):
            await task

    run(scenario())


@pytest.mark.parametrize(("replicas", "ours"), [(1, RequestTimeoutError), (0, ModelNotReadyError)])
def test_the_head_is_waited_for_within_the_time_limit(replicas, ours):
    async def scenario():
        serve = FakeServe(a=application("RUNNING", replicas, request_timeout_seconds=0.1))
        task, response = await asked(serve=serve)
        with pytest.raises(ours):
            await asyncio.wait_for(task, 5)
        assert response.cancelled

    run(scenario())


def test_what_comes_after_the_head_has_no_time_limit():
    async def scenario():
        serve = FakeServe(a=application("RUNNING", 1, request_timeout_seconds=0.1))
        task, response = await asked(HEAD, serve=serve)
        reply = await task
        await asyncio.sleep(0.2)
        response.queue.put_nowait(b"late")
        return await anext(reply.chunks)

    assert run(scenario()) == b"late"


def test_a_replica_that_is_lost_in_the_middle_is_said_in_the_stream():
    async def scenario():
        task, _ = await asked(HEAD, b"one", ActorDiedError())
        return [chunk async for chunk in (await task).chunks]

    first, last = run(scenario())
    assert first == b"one"
    assert last.startswith(b'data: {"error":{"message":"a lost this request')


def test_a_client_that_leaves_ends_it_before_the_head_and_in_the_middle():
    async def scenario():
        task, response = await asked()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert response.cancelled
        task, response = await asked(HEAD)
        await (await task).aclose()
        assert response.cancelled

    run(scenario())
