import asyncio
import contextlib
import threading
import time

import pytest
from ray.serve._private.common import DeploymentStatusTrigger, ReplicaState
from ray.serve.schema import ApplicationStatus

from serve_app.gateway import model_index as index_module
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.public_reason import NOT_LOADED
from serve_app.http.errors import ModelNotReadyError, UnknownModelError
from tests.harness.builders import run, until

FAILED = "Traceback\nserve_app.loading.sources.SourceError: file:///a: there is no folder /a"


def application(
    status="RUNNING",
    running=1,
    message="",
    deployment_message="",
    stopping=0,
    trigger="CONFIG_UPDATE_COMPLETED",
    **user_config,
):
    """Return what Serve says of one application, cut to what matters."""
    states = [*(["RUNNING"] * running or ["STARTING"]), *["STOPPING"] * stopping]
    deployment = {
        "message": deployment_message,
        "status_trigger": DeploymentStatusTrigger(trigger),
        "deployment_config": {"name": "Model", "user_config": user_config},
        "replicas": [{"state": state} for state in states],
    }
    return {
        "status": ApplicationStatus(status),
        "message": message,
        "deployments": {"Model": deployment},
    }


class FakeServe:
    """Imitates Serve's answer about all applications: what it says can change, fail, or be held back."""

    def __init__(self, **applications):
        self.applications = {"gateway": application(), **applications}
        self.error = None
        self.calls = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self):
        self.calls += 1
        assert self.free.wait(5)
        if self.error:
            raise self.error
        return dict(self.applications)


@pytest.fixture
def always_stale(monkeypatch):
    monkeypatch.setattr(index_module, "FRESH_SECONDS", 0.0)


@pytest.fixture
def never_stale(monkeypatch):
    monkeypatch.setattr(index_module, "FRESH_SECONDS", 3600.0)


def resolve(serve, name):
    return run(ModelIndex(serve).resolve(name))


def test_a_model_that_runs_is_found():
    state = resolve(FakeServe(a=application()), "a")
    assert state.as_json() == {
        "name": "a",
        "state": "RUNNING",
        "ready": True,
        "reason": "",
        "url": "/v2/models/a",
        "task": "",
        "replicas": 1,
    }


def test_the_task_is_that_of_the_config_also_without_a_replica():
    configured = application("RUNNING", 0) | {"deployed_app_config": {"args": {"task": "fill-mask"}}}
    assert resolve(FakeServe(a=configured), "a").as_json()["task"] == "fill-mask"


@pytest.mark.parametrize(
    ("status", "running"), [("RUNNING", 0), ("DEPLOYING", 1), ("DEPLOY_FAILED", 1), ("UNHEALTHY", 2)]
)
def test_a_model_answers_while_it_has_a_replica_or_may_get_one(status, running):
    assert resolve(FakeServe(a=application(status, running)), "a").answers


@pytest.mark.parametrize("state", ["UPDATING", "RECOVERING", "PENDING_MIGRATION"])
def test_a_replica_that_takes_over_a_setting_or_leaves_its_node_counts(state):
    changing = application("DEPLOYING", 0)
    changing["deployments"]["Model"]["replicas"] = [{"state": state}]
    assert resolve(FakeServe(a=changing), "a").replicas == 1


def test_every_state_of_a_replica_is_known():
    known = {*index_module._LOADED, index_module.STOPPING, "STOPPED", "STARTING"}
    assert known == {state.value for state in ReplicaState}


def test_an_unknown_model_is_refused_without_a_word_about_others():
    with pytest.raises(UnknownModelError) as caught:
        resolve(FakeServe(b=application(), a=application()), "c")
    assert str(caught.value) == "no model is named 'c'; GET /v2/models has those that are"
    assert caught.value.details == {}


def test_the_gateway_is_no_model():
    with pytest.raises(UnknownModelError, match="no model is named 'gateway'"):
        resolve(FakeServe(), "gateway")


def test_a_long_name_is_shown_shortened():
    with pytest.raises(UnknownModelError) as caught:
        resolve(FakeServe(), "x" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("status", ["NOT_STARTED", "DEPLOYING", "DEPLOY_FAILED", "UNHEALTHY", "DELETING"])
def test_a_model_without_a_replica_is_not_ready_and_says_why(status):
    with pytest.raises(ModelNotReadyError) as caught:
        resolve(FakeServe(a=application(status, 0, "Failed.", FAILED)), "a")
    assert str(caught.value) == f"a is {status}: {NOT_LOADED}"
    assert caught.value.details == {"state": status}


def test_a_model_without_a_replica_and_without_a_message_names_its_state():
    with pytest.raises(ModelNotReadyError, match="^a is DEPLOYING$"):
        resolve(FakeServe(a=application("DEPLOYING", 0)), "a")


def test_a_failed_update_that_left_a_replica_is_listed_with_its_cause():
    serve = FakeServe(a=application("DEPLOY_FAILED", 1, deployment_message=FAILED))
    [state] = run(ModelIndex(serve).all())
    assert (state.answers, state.reason) == (True, NOT_LOADED)


def test_all_models_are_listed_by_name():
    states = run(ModelIndex(FakeServe(b=application(), a=application())).all())
    assert [state.name for state in states] == ["a", "b"]


@pytest.mark.usefixtures("never_stale")
def test_a_fresh_report_is_not_asked_for_again():
    async def scenario():
        serve = FakeServe(a=application())
        index = ModelIndex(serve)
        await index.refresh()
        for _ in range(3):
            await index.resolve("a")
        return serve.calls

    assert run(scenario()) == 1


@pytest.mark.usefixtures("never_stale")
def test_a_model_that_has_just_come_is_found_in_the_next_report():
    async def scenario():
        serve = FakeServe()
        index = ModelIndex(serve)
        await index.refresh()
        serve.applications["new"] = application()
        await asyncio.sleep(index_module.REFUSED_SECONDS)
        return (await index.resolve("new")).name

    assert run(scenario()) == "new"


@pytest.mark.usefixtures("never_stale")
def test_a_model_that_has_just_become_ready_is_found_in_the_next_report():
    async def scenario():
        serve = FakeServe(a=application("DEPLOYING", 0))
        index = ModelIndex(serve)
        await index.refresh()
        serve.applications["a"] = application()
        await asyncio.sleep(index_module.REFUSED_SECONDS)
        return (await index.resolve("a")).status

    assert run(scenario()) == "RUNNING"


@pytest.mark.usefixtures("always_stale")
def test_a_stale_report_is_renewed_without_keeping_the_request_waiting():
    async def scenario():
        serve = FakeServe(a=application())
        index = ModelIndex(serve)
        await index.refresh()
        serve.applications["a"] = application("UNHEALTHY", 1)
        serve.free.clear()
        old = await index.resolve("a")
        serve.free.set()
        await until(lambda: index._refreshing is None)
        return old.status, index._states["a"].status

    assert run(scenario()) == ("RUNNING", "UNHEALTHY")


@pytest.mark.usefixtures("never_stale")
@pytest.mark.parametrize("serve", [FakeServe(), FakeServe(a=application("DEPLOYING", 0))])
def test_requests_in_vain_do_not_ask_serve_one_by_one(serve):
    async def scenario():
        index = ModelIndex(serve)
        for number in range(100):
            for name in ("a", f"nobody-{number}"):
                with pytest.raises((UnknownModelError, ModelNotReadyError)):
                    await index.resolve(name)

    began = time.monotonic()
    run(scenario())
    assert 1 <= serve.calls <= 2 + (time.monotonic() - began) / index_module.REFUSED_SECONDS


def test_requests_at_the_same_time_share_one_question():
    async def scenario():
        serve = FakeServe(a=application())
        index = ModelIndex(serve)
        states = await asyncio.gather(*(index.resolve("a") for _ in range(20)), index.all())
        return serve.calls, len(states)

    assert run(scenario()) == (1, 21)


def test_a_request_that_goes_away_does_not_take_the_answer_from_the_others():
    async def scenario():
        serve = FakeServe(a=application())
        serve.free.clear()
        index = ModelIndex(serve)
        gone, stays = asyncio.create_task(index.resolve("a")), asyncio.create_task(index.resolve("a"))
        await until(lambda: serve.calls)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        serve.free.set()
        return (await stays).name, serve.calls

    assert run(scenario()) == ("a", 1)


def test_after_a_question_that_failed_the_next_one_is_asked():
    async def scenario():
        serve = FakeServe(a=application())
        serve.error = RuntimeError("the controller is away")
        index = ModelIndex(serve)
        with pytest.raises(ModelNotReadyError, match="does not say which models"):
            await index.resolve("a")
        serve.error = None
        return (await index.resolve("a")).name

    assert run(scenario()) == "a"


@pytest.mark.usefixtures("always_stale")
def test_a_known_model_answers_while_the_control_plane_is_away():
    async def scenario():
        serve = FakeServe(a=application())
        index = ModelIndex(serve)
        await index.refresh()
        serve.error = RuntimeError("the controller is away")
        states = []
        for _ in range(3):
            states.append((await index.resolve("a")).status)
            await asyncio.gather(*filter(None, [index._refreshing]), return_exceptions=True)
        return states

    assert run(scenario()) == ["RUNNING"] * 3


def test_a_controller_that_does_not_answer_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(index_module, "REFRESH_SECONDS", 0.05)

    async def scenario():
        serve = FakeServe(a=application())
        serve.free.clear()
        index = ModelIndex(serve)
        try:
            with pytest.raises(ModelNotReadyError, match="does not say which models"):
                await index.resolve("a")
        finally:
            serve.free.set()
        await until(lambda: index._refreshing is None)
        serve.free.clear()
        try:
            # What it said last holds.
            with pytest.raises(UnknownModelError):
                await index.resolve("b")
            return (await index.resolve("a")).name
        finally:
            serve.free.set()

    assert run(scenario()) == "a"


def test_a_model_has_the_time_limit_of_its_endpoint():
    serve = FakeServe(a=application(request_timeout_seconds=7.5), b=application())
    assert [state.request_timeout_seconds for state in run(ModelIndex(serve).all())] == [7.5, 60]


@pytest.mark.parametrize(("stopping", "raised"), [(0, ModelNotReadyError), (1, None)])
def test_a_request_that_a_stopping_replica_may_have_is_not_in_vain(stopping, raised):
    index = ModelIndex(FakeServe(a=application("DELETING", 0, stopping=stopping)))
    with pytest.raises(raised) if raised else contextlib.nullcontext():
        run(index.check_waiting("a"))


def test_a_request_for_a_model_that_is_gone_is_in_vain():
    with pytest.raises(UnknownModelError):
        run(ModelIndex(FakeServe()).check_waiting("a"))


def test_requests_in_vain_cost_few_calls_of_a_serve_that_does_not_answer():
    async def scenario():
        serve = FakeServe(a=application())
        index = ModelIndex(serve)
        await index.refresh()
        serve.error = RuntimeError("the controller is away")
        before, began = serve.calls, time.monotonic()
        for _ in range(50):
            with pytest.raises(UnknownModelError):
                await index.resolve("no")
        assert serve.calls - before <= 1 + (time.monotonic() - began) / index_module.REFUSED_SECONDS

    run(scenario())
