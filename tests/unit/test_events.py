"""Which events are created about endpoints and the RayService, and what they contain."""

from datetime import UTC, datetime

import pytest

from endpoint_operator.api.status import parse_status
from endpoint_operator.controller.events import Event, drift_event, status_events
from endpoint_operator.controller.observed.endpoint import parse_observed
from endpoint_operator.controller.observed.rayservice import parse_ray_service
from endpoint_operator.kube.kinds import MODEL_ENDPOINT
from tests.unit.small_world import FAILED, World, application


def announced(world, name, before):
    after = parse_status(world.status(name))
    return [(event.type, event.reason) for event in status_events(before, after)]


def test_each_change_of_the_reason_is_announced_and_nothing_else():
    world = World("a")
    before = parse_observed(world.endpoints["a"])
    world.serve()
    assert announced(world, "a", before) == [("Normal", "Serving")]
    before = parse_observed(world.endpoints["a"])
    world.change("a", resources={"profile": "nowhere"})
    world.reconcile()
    assert announced(world, "a", before) == [("Warning", "ProfileNotFound")]
    before = parse_observed(world.endpoints["a"])
    world.reconcile()
    assert announced(world, "a", before) == []
    world.change("a", suspend=True)
    world.reconcile()
    assert announced(world, "a", before) == [("Normal", "Suspended")]


@pytest.mark.parametrize(
    ("report", "reason"), [(FAILED, "DeployFailed"), (application("UNHEALTHY"), "Unhealthy")]
)
def test_what_goes_wrong_is_announced_as_a_warning(report, reason):
    world = World("a")
    world.serve()
    before = parse_observed(world.endpoints["a"])
    world.follow(a=report)
    world.reconcile()
    assert announced(world, "a", before) == [("Warning", reason)]


def test_a_rollback_is_announced():
    world = World("a")
    world.serve()
    world.change("a", model={"uri": "file:///models/broken"})
    world.settle(a=FAILED)
    before = parse_observed(world.endpoints["a"])
    world.reconcile(after=1000)
    assert announced(world, "a", before) == [("Warning", "RolledBack")]


def test_an_event_says_what_it_is_about():
    world = World("a")
    event = drift_event(parse_ray_service(world.service), "ray").to_manifest(
        "models", datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    )
    assert event["regarding"] == {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "name": "ray",
        "namespace": "models",
        "uid": "ray",
    }
    assert event["eventTime"] == "2026-01-02T03:04:05.000600Z"
    assert event["reason"] == "DriftCorrected"


def test_a_note_fits_in_the_bytes_that_the_api_server_takes():
    event = Event("Normal", "Deploying", "日" * 1000, MODEL_ENDPOINT, "a", "u")
    note = event.to_manifest("models", datetime.now(UTC))["note"]
    assert len(note.encode()) <= 1024
    assert set(note) == {"日"}
