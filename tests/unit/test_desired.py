"""What is decided for the Serve config and the statuses over time, in a small world."""

import pytest

from endpoint_operator.controller.decide import desired
from endpoint_operator.controller.decide.stopwatch import Stopwatch
from tests.unit.small_world import DEADLINES, World, details


def test_nothing_that_stays_is_written_again(world):
    before = [dict(world.status(name)) for name in world.endpoints], world.document
    world.reconcile(after=1000)
    world.restart()
    world.reconcile()
    assert before == ([dict(world.status(name)) for name in world.endpoints], world.document)


def test_running_of_the_version_before_is_not_taken_for_the_new_one(world):
    good = world.status("a")["lastGood"]["application"]
    world.change("a", batching={"maxBatchSize": 2})
    world.reconcile()
    world.follow()
    world.reconcile()
    assert world.condition("a") == ("False", "Deploying")
    assert world.status("a")["lastGood"]["application"] == good
    world.reconcile(after=DEADLINES.settle_seconds)
    assert world.condition("a") == ("True", "Serving")


def test_a_change_of_one_leaves_the_others_ready(world):
    world.change("a", batching={"maxBatchSize": 2})
    world.reconcile()
    assert world.condition("b") == ("True", "Serving")


def test_without_a_ray_service_nothing_is_decided_for_it(world):
    world.service = None
    assert world.reconcile().document is None
    assert world.condition("a") == ("False", "RayServiceNotFound")


def test_a_new_ray_service_starts_with_the_gateway(world):
    world.service = World().service | {
        "metadata": {"uid": "another", "resourceVersion": "9", "generation": 1}
    }
    world.reconcile()
    assert list(world.entries) == ["gateway"]


def test_applications_that_vanish_are_unknown_and_stay_in_the_document(world):
    before = world.document
    world.service["status"]["activeServiceStatus"]["applicationStatuses"] = {}
    world.reconcile()
    world.reconcile(after=10 * DEADLINES.missing_seconds)
    assert world.condition("a") == ("Unknown", "ApplicationMissing")
    assert world.document == before


def test_an_application_that_ray_lacks_is_handed_over_again_in_another_string(world):
    before = world.document
    del world.service["status"]["activeServiceStatus"]["applicationStatuses"]["a"]
    world.reconcile()
    assert world.document == before
    world.reconcile(after=DEADLINES.missing_seconds)
    assert world.document == f"{before}\n"
    world.service["status"]["observedGeneration"] += 1
    world.reconcile()
    assert world.document == f"{before}\n"
    world.reconcile(after=DEADLINES.missing_seconds)
    assert world.document == before


def test_an_application_that_ray_has_otherwise_is_handed_over_again(world):
    # As after the loss of what Ray's head has written last.
    before = world.document
    world.answer()
    world.dashboard["applications"]["a"]["deployed_app_config"]["route_prefix"] = "/before"
    world.reconcile()
    world.reconcile(after=DEADLINES.missing_seconds - 1)
    assert world.document == before
    world.reconcile(after=1)
    assert world.document == f"{before}\n"


@pytest.mark.parametrize(("status", "again"), [("RUNNING", True), ("DELETING", False)])
def test_an_application_that_was_deleted_does_not_come_back_with_ray_s_head(world, status, again):
    before = world.document
    world.answer()
    world.dashboard["applications"]["gone"] = details(status)
    world.reconcile()
    world.reconcile(after=DEADLINES.missing_seconds)
    assert (world.document != before) == again


def test_one_that_is_being_deleted_leaves(world):
    world.endpoints["a"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    decision = world.reconcile()
    assert "a" not in world.entries
    # It is asked for by name first, because the kind itself may be going.
    assert decision.absent == {"a"}


def test_what_no_endpoint_stands_for_is_named_before_it_goes(world):
    del world.endpoints["a"]
    assert world.reconcile().absent == {"a"}


def test_a_document_of_another_shape_is_replaced(world):
    before = world.document
    world.service["spec"]["serveConfigV2"] = "applications: none"
    world.reconcile()
    assert world.document == before


def test_two_operators_do_not_unsay_what_the_faster_one_knows(world):
    ours, theirs = world.watch, Stopwatch()
    world.watch = theirs
    world.reconcile()
    world.change("a", limits={"maxQueuedRequests": 7})
    world.watch = ours
    world.settle()
    assert world.condition("a") == ("True", "Serving")
    before = world.status("a")
    world.watch = theirs
    world.reconcile()
    assert world.status("a") == before


def test_a_restored_ray_service_is_followed_from_its_own_generation_on(world):
    world.service["metadata"]["generation"] = 15
    world.change("a", batching={"maxBatchSize": 2})
    world.reconcile()
    before = world.document
    world.service = {
        "metadata": {"uid": "restored", "resourceVersion": "90", "generation": 1},
        "spec": {"serveConfigV2": before},
        "status": {},
    }
    world.reconcile(after=DEADLINES.settle_seconds)
    world.settle()
    world.settle()
    assert world.document == before
    assert world.condition("a") == ("True", "Serving")


@pytest.mark.parametrize("part", ["advance", "select_version", "evaluate"])
def test_an_error_about_one_endpoint_leaves_its_entry_and_concerns_nobody_else(world, monkeypatch, part):
    before = world.document
    real = getattr(desired, part)

    def fails_for_a(*arguments, **options):
        if any("models/odd" in repr(each) for each in arguments) and not is_our_report(arguments):
            raise ZeroDivisionError("odd")
        return real(*arguments, **options)

    def is_our_report(arguments):
        return any(
            getattr(getattr(each, "selected", None), "reason", "") == "InternalError" for each in arguments
        )

    monkeypatch.setattr(desired, part, fails_for_a)
    world.change("a", model={"uri": "file:///models/odd"})
    world.create("c")
    found = world.reconcile()
    assert world.condition("a") == ("False", "InternalError")
    assert "ZeroDivisionError: odd" in world.status("a")["lastError"]
    assert "ZeroDivisionError" in found.errors["a"]
    assert '"a"' in before
    assert world.entries.keys() == {"a", "b", "c", "gateway"}
    assert "odd" not in world.entries["a"]
    monkeypatch.undo()
    world.reconcile()
    assert "odd" in world.entries["a"]


def test_a_loss_of_the_ray_service_s_memory_of_an_endpoint_is_no_loss_of_its_entry(world):
    before = world.document
    del world.endpoints["a"]["status"]
    world.restart()
    world.reconcile()
    assert world.document == before
    world.settle()
    assert world.condition("a") == ("True", "Serving")
