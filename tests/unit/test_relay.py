"""Requests that wait for a replica in Serve's handle, which would let them wait for ever."""

import asyncio

import pytest
from ray.serve.exceptions import DeploymentUnavailableError

from serve_app.contract import MODEL_DEPLOYMENT
from serve_app.gateway import relay as relay_module
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.public_reason import NOT_LOADED
from serve_app.gateway.relay import Relay
from serve_app.http.errors import ModelNotReadyError, Reply, RequestTimeoutError, UnknownModelError
from tests.harness.builders import run, until
from tests.unit.test_model_index import FAILED, FakeServe, application

REPLY = Reply(b"{}", "application/json")


class Response:
    """Imitates Serve's DeploymentResponse: awaitable, and in the handle's queue until `cancel`."""

    def __init__(self):
        self.future = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def __await__(self):
        return self.future.__await__()

    def cancel(self):
        self.cancelled = True


class Handle:
    """Imitates Serve's handle of one model; its requests are answered by the test."""

    def __init__(self):
        self.responses = []
        self.call = self

    def remote(self, verb, body, headers):
        self.responses.append(Response())
        return self.responses[-1]


@pytest.fixture(autouse=True)
def checked_often(monkeypatch):
    monkeypatch.setattr(relay_module, "CHECK_SECONDS", 0.01)


async def sent(serve, handle):
    """Return the request as a task, once it is in the handle's queue."""
    relay = Relay(ModelIndex(serve), lambda name: handle)
    task = asyncio.create_task(relay.send("a", "predict", b"{}", {}))
    await until(lambda: handle.responses)
    return task


def test_a_reply_is_handed_on():
    async def scenario():
        handle = Handle()
        task = await sent(FakeServe(a=application()), handle)
        handle.responses[0].future.set_result(REPLY)
        return await task, handle.responses[0].cancelled

    assert run(scenario()) == (REPLY, False)


def fails_with(error, before, change=lambda serve: None):
    """Check the error of a request that no replica gets, and that the handle forgets it; return the error."""

    async def scenario():
        serve, handle = FakeServe(a=before), Handle()
        task = await sent(serve, handle)
        change(serve)
        with pytest.raises(error) as caught:
            await asyncio.wait_for(task, 5)
        assert handle.responses[0].cancelled
        return caught.value

    return run(scenario())


def test_a_model_that_gets_no_replica_is_answered_within_the_time_limit():
    error = fails_with(ModelNotReadyError, application("RUNNING", 0, request_timeout_seconds=0.1))
    assert str(error) == "a had no replica within 0.1 seconds"


def test_the_cause_is_named_if_serve_knows_one():
    idle = application("RUNNING", 0, deployment_message=FAILED, request_timeout_seconds=0.1)
    assert NOT_LOADED in str(fails_with(ModelNotReadyError, idle))


def test_a_replica_that_is_busy_for_too_long_is_a_timeout():
    error = fails_with(RequestTimeoutError, application("RUNNING", 1, request_timeout_seconds=0.1))
    assert str(error) == "no answer within 0.1 seconds"


def lost(trigger, **user_config):
    return application("UNHEALTHY", 0, deployment_message=FAILED, trigger=trigger, **user_config)


def test_a_lost_replica_is_waited_for_within_the_time_limit():
    before = lost("HEALTH_CHECK_FAILED", request_timeout_seconds=0.1)
    error = fails_with(ModelNotReadyError, before)
    assert str(error) == f"a had no replica within 0.1 seconds: {NOT_LOADED}"


def test_a_lost_replica_that_cannot_be_replaced_ends_the_wait():
    def fail(serve):
        serve.applications["a"] = lost("REPLICA_STARTUP_FAILED")

    error = fails_with(ModelNotReadyError, lost("HEALTH_CHECK_FAILED"), fail)
    assert str(error) == f"a is UNHEALTHY: {NOT_LOADED}"


def test_a_model_whose_replica_is_lost_is_not_ready():
    with pytest.raises(ModelNotReadyError):
        run(ModelIndex(FakeServe(a=lost("HEALTH_CHECK_FAILED"))).resolve("a"))


def test_a_scale_from_zero_that_fails_ends_the_wait():
    def fail(serve):
        serve.applications["a"] = application("UNHEALTHY", 0, deployment_message=FAILED)

    error = fails_with(ModelNotReadyError, application("RUNNING", 0), fail)
    assert str(error) == f"a is UNHEALTHY: {NOT_LOADED}"


def test_a_model_that_is_removed_ends_the_wait():
    fails_with(UnknownModelError, application("RUNNING", 0), lambda serve: serve.applications.pop("a"))


def test_a_model_that_is_removed_finishes_what_it_has_begun():
    async def scenario():
        serve, handle = FakeServe(a=application()), Handle()
        task = await sent(serve, handle)
        serve.applications["a"] = application("DELETING", 0, stopping=1)
        calls = serve.calls
        await until(lambda: serve.calls > calls + 2)
        handle.responses[0].future.set_result(REPLY)
        return await task

    assert run(scenario()) == REPLY


def test_a_request_whose_client_has_left_leaves_the_queue():
    async def scenario():
        handle = Handle()
        task = await sent(FakeServe(a=application()), handle)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return handle.responses[0].cancelled

    assert run(scenario())


def test_a_lost_replica_is_said_and_the_next_request_takes_a_new_handle():
    async def scenario():
        handles = [Handle(), Handle()]
        relay = Relay(ModelIndex(FakeServe(a=application())), lambda name: handles.pop(0))
        first, second = handles
        task = asyncio.create_task(relay.send("a", "predict", b"{}", {}))
        await until(lambda: first.responses)
        first.responses[0].future.set_exception(DeploymentUnavailableError(MODEL_DEPLOYMENT))
        with pytest.raises(ModelNotReadyError, match="a lost this request; send it again"):
            await task
        task = asyncio.create_task(relay.send("a", "predict", b"{}", {}))
        await until(lambda: second.responses)
        second.responses[0].future.set_result(REPLY)
        return await task

    assert run(scenario()) == REPLY
