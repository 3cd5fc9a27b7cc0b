"""Serve's controller waits for the replicas that run already as long as they may need."""

import time
from types import SimpleNamespace

import pytest
from ray.serve._private import controller, deployment_state
from ray.serve._private.common import ReplicaState
from ray.serve._private.deployment_state import DeploymentState

from serve_app.recovery import recovery_seconds, wait_for_replicas

CONSTANT = "RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S"
CHECK = "_check_startup_replicas"


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(controller, CONSTANT, getattr(controller, CONSTANT))
    monkeypatch.setattr(DeploymentState, CHECK, getattr(DeploymentState, CHECK))


@pytest.mark.parametrize(("warned_after", "seconds"), [(30, 75), (300, 315)])
def test_the_control_loop_waits_longer_than_ray_would(monkeypatch, warned_after, seconds):
    # The loop reads it when it starts, as a global of its module.
    assert CONSTANT in controller.ServeController.run_control_loop.__code__.co_names
    monkeypatch.setattr(deployment_state, "SLOW_STARTUP_WARNING_S", warned_after)
    assert getattr(controller, CONSTANT) < recovery_seconds()
    wait_for_replicas()
    assert getattr(controller, CONSTANT) == seconds


@pytest.mark.parametrize(
    ("may_stop", "seconds", "stops"), [(True, 59, False), (True, 61, True), (False, 61, False)]
)
def test_a_replica_may_be_stopped_when_its_time_is_over(monkeypatch, may_stop, seconds, stops):
    """Ray's check is a double; tests/serve/test_recovery.py has a real one."""
    asked = []

    def check(self, original_state, stop_on_slow=False):
        asked.append((original_state, stop_on_slow))

    monkeypatch.setattr(DeploymentState, CHECK, check)
    wait_for_replicas()
    replicas = {ReplicaState.RECOVERING: [SimpleNamespace(_start_time=time.time() - seconds)]}
    state = SimpleNamespace(_replicas=SimpleNamespace(get=lambda states: replicas[states[0]]))
    getattr(DeploymentState, CHECK)(state, ReplicaState.RECOVERING, stop_on_slow=may_stop)
    assert asked == [(ReplicaState.RECOVERING, stops)]


@pytest.mark.parametrize(("owner", "name"), [(controller, CONSTANT), (DeploymentState, CHECK)])
def test_a_ray_without_one_of_them_starts_all_the_same(monkeypatch, owner, name):
    monkeypatch.delattr(owner, name)
    wait_for_replicas()
    assert not hasattr(owner, name)


def test_a_check_that_takes_something_else_stays_as_it_is(monkeypatch):
    def check(self, original_state):
        """A Ray of another version."""

    monkeypatch.setattr(DeploymentState, CHECK, check)
    wait_for_replicas()
    assert getattr(DeploymentState, CHECK) is check
