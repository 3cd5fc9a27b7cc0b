"""Serve's controller waits for the replicas that run already as long as they may need."""

from ray.serve._private import controller

from serve_app.recovery import RECOVERY_SECONDS, wait_for_replicas


def test_the_control_loop_waits_longer_than_ray_would(monkeypatch):
    name = "RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S"
    # The loop reads it when it starts, as a global of its module.
    assert name in controller.ServeController.run_control_loop.__code__.co_names
    monkeypatch.setattr(controller, name, controller.RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S)
    assert getattr(controller, name) < RECOVERY_SECONDS
    wait_for_replicas()
    assert getattr(controller, name) == RECOVERY_SECONDS


def test_a_ray_without_the_constant_starts_all_the_same(monkeypatch):
    monkeypatch.delattr(controller, "RECOVERING_LONG_POLL_BROADCAST_TIMEOUT_S")
    wait_for_replicas()
