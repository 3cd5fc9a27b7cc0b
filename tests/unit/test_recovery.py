"""Serve's controller waits for the replicas that run already as long as they may need."""

import pytest
from ray.serve._private import controller
from ray.serve._private.deployment_state import DeploymentState

from serve_app.recovery import RECOVERY_SECONDS, wait_for_replicas

CONSTANT = "RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S"
CHECK = "_check_startup_replicas"


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(controller, CONSTANT, getattr(controller, CONSTANT))
    monkeypatch.setattr(DeploymentState, CHECK, getattr(DeploymentState, CHECK))


def test_the_control_loop_waits_longer_than_ray_would():
    # The loop reads it when it starts, as a global of its module.
    assert CONSTANT in controller.ServeController.run_control_loop.__code__.co_names
    assert getattr(controller, CONSTANT) < RECOVERY_SECONDS
    wait_for_replicas()
    assert getattr(controller, CONSTANT) == RECOVERY_SECONDS


@pytest.mark.parametrize(("owner", "name"), [(controller, CONSTANT), (DeploymentState, CHECK)])
def test_a_ray_that_is_otherwise_starts_all_the_same(monkeypatch, owner, name):
    monkeypatch.delattr(owner, name)
    wait_for_replicas()
    assert not hasattr(owner, name)
