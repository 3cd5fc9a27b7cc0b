"""Which entry an endpoint gets: that of its spec, an older one, or none."""

import json
from dataclasses import replace

import pytest

from endpoint_operator.api.sources import Sources
from tests.unit.small_world import (
    DEADLINES,
    ERROR,
    FAILED,
    FAILED_SECONDS,
    WAITS,
    World,
    application,
    cluster_status,
    details,
)

NO_SUCH_PROFILE = {"profile": "nowhere"}


def test_before_the_service_has_run_there_is_only_the_gateway():
    world = World("a")
    world.reconcile()
    assert list(world.entries) == ["gateway"]
    assert world.condition("a") == ("False", "WaitingForGateway")
    world.follow()
    world.reconcile()
    assert list(world.entries) == ["a", "gateway"]


def test_after_a_loss_of_the_cluster_the_gateway_comes_first_and_then_the_models(world):
    before = world.document
    # KubeRay keeps the name of the cluster that is gone, and prepares another one.
    status = world.service["status"]
    status["activeServiceStatus"] = {"rayClusterName": "one", "rayClusterStatus": {"head": {}}}
    status["pendingServiceStatus"] = cluster_status("two", {})
    status["conditions"] = [{"type": "Ready", "status": "False"}]
    world.reconcile()
    assert world.document == before
    world.reconcile(after=DEADLINES.settle_seconds)
    assert list(world.entries) == ["gateway"]
    assert world.condition("a") == ("False", "WaitingForGateway")
    world.follow_pending()
    world.promote()
    status["conditions"] = [{"type": "Ready", "status": "True"}]
    world.reconcile()
    assert world.document == before


def test_a_status_that_is_empty_for_a_moment_takes_nothing_out(world):
    before, status = world.document, world.service["status"]
    world.service["status"] = {}
    world.restart()
    world.reconcile()
    world.service["status"] = status
    world.reconcile(after=DEADLINES.settle_seconds)
    assert world.document == before


@pytest.mark.parametrize("report", [WAITS, FAILED, application("UNHEALTHY")])
def test_one_that_does_not_run_leaves_until_there_are_services_again(world, report):
    world.service["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.follow(a=report)
    world.service["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.reconcile()
    assert "a" in world.entries
    world.reconcile(after=FAILED_SECONDS)
    assert list(world.entries) == ["b", "gateway"]
    world.follow()
    world.reconcile(after=DEADLINES.retry_seconds)
    assert list(world.entries) == ["a", "b", "gateway"]


def test_what_the_gateway_fails_of_is_said():
    world = World("a")
    world.reconcile()
    world.service["status"] = {
        "pendingServiceStatus": cluster_status("one", {"gateway": FAILED}),
        "conditions": [{"type": "Ready", "status": "False"}],
    }
    world.reconcile()
    assert world.condition("a") == ("False", "WaitingForGateway")
    assert ERROR.partition(": ")[2] in world.status("a")["lastError"]


def test_what_grows_beyond_the_room_keeps_the_entry_that_it_has(world):
    before = world.document
    world.document_limit = len(before) + 50
    world.change("a", model={"uri": f"file:///models/{'x' * 100}"})
    world.reconcile()
    assert world.document == before
    assert world.condition("a") == ("False", "ServeConfigFull")
    assert world.condition("b") == ("True", "Serving")
    world.document_limit += 100
    world.reconcile()
    assert "xxx" in world.entries["a"]


def test_two_that_grow_do_not_both_take_the_room_that_one_has(world):
    world.document_limit = len(world.document) + 100
    for name in "ab":
        world.change(name, model={"uri": f"file:///models/{'x' * 80}"})
    world.reconcile()
    assert len(world.document) <= world.document_limit
    assert [("xxx" in world.entries[name]) for name in "ab"] == [True, False]


def test_a_version_that_fits_nowhere_leaves_the_one_before(world):
    before = world.document
    world.change("a", resources=NO_SUCH_PROFILE)
    world.reconcile()
    assert world.document == before
    assert world.condition("a", "Accepted") == ("False", "ProfileNotFound")
    assert "nowhere" in world.status("a")["lastError"]


def test_an_endpoint_that_never_fitted_is_left_out_and_changes_nothing(world):
    before = world.document
    world.create("c", resources=NO_SUCH_PROFILE)
    world.reconcile()
    assert world.document == before
    assert world.condition("c", "Stalled") == ("True", "ProfileNotFound")


def test_an_endpoint_that_is_larger_than_a_worker_says_so(world):
    world.create("c", resources={"memory": "999Gi"})
    world.reconcile()
    assert world.condition("c", "Accepted") == ("False", "ExceedsProfile")
    assert "a worker of profile 'cpu' has 16Gi" in world.status("c")["lastError"]


def from_only(world, *rules):
    """Let the chart allow these sources, and the operator look."""
    world.profiles = replace(world.profiles, sources=Sources(rules))
    world.reconcile()


def test_a_source_that_is_not_allowed_is_left_out_and_changes_nothing(world):
    before = world.document
    world.create("c", model={"uri": "hf://org/name"})
    from_only(world, "file:///models/", "hf://other")
    assert world.document == before
    assert world.condition("c", "Accepted") == ("False", "SourceNotAllowed")
    assert world.condition("c", "Stalled") == ("True", "SourceNotAllowed")
    assert world.status("c")["lastError"] == (
        "model.uri: hf://org/name is no allowed source; sources.allow of the chart has file:///models/, hf://other"
    )
    from_only(world, "file:///models/", "hf://org")
    assert "c" in world.entries


def test_a_change_to_a_source_that_is_not_allowed_leaves_the_version_before(world):
    before = world.document
    world.change("a", model={"uri": "hf://org/name"})
    from_only(world, "file:///models/")
    assert world.document == before
    assert world.condition("a") == ("False", "SourceNotAllowed")


def test_what_is_served_goes_when_its_source_is_allowed_no_longer_and_comes_back(world):
    before = world.document
    world.change("b", model={"uri": "hf://org/name"})
    world.settle()
    from_only(world, "hf://org")
    assert list(world.entries) == ["b", "gateway"]
    assert world.condition("a") == ("False", "SourceNotAllowed")
    assert not world.status("a").get("readyReplicas")
    # Nor is an older version of such a source.
    world.change("b", model={"uri": "file:///etc"})
    from_only(world, "hf://org/name")
    assert json.loads(world.entries["b"])["args"]["uri"] == "hf://org/name"
    world.change("b", model={"uri": "file:///models/sentiment"})
    from_only(world)
    world.follow()
    assert world.document == before
    assert world.condition("a")[1] != "SourceNotAllowed"


def test_a_version_that_fails_is_not_replaced_by_one_whose_source_is_allowed_no_longer(world):
    world.change("a", model={"uri": "hf://org/name"})
    world.settle(a=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    world.settle()
    assert world.condition("a") == ("False", "RolledBack")
    from_only(world, "hf")
    assert list(world.entries) == ["gateway"]
    assert world.condition("a") == ("False", "Withdrawn")


def test_a_token_that_is_not_listed_is_refused(world):
    world.create("c", model={"uri": "hf://org/name", "tokenSecret": "team-z"})
    world.create("d", model={"uri": "hf://org/name", "tokenSecret": "team-a"})
    world.reconcile()
    assert world.condition("c", "Accepted") == ("False", "SourceNotAllowed")
    assert "Secret 'team-z'" in world.status("c")["lastError"]
    assert json.loads(world.entries["d"])["args"]["token_secret"] == "team-a"


def test_an_invalid_spec_that_got_past_the_api_server_is_left_out_with_its_reason(world):
    world.create("c")
    world.endpoints["c"]["spec"]["model"]["uri"] = "ftp://x"
    world.reconcile()
    assert "c" not in world.entries
    assert world.condition("c") == ("False", "InvalidSpec")
    assert "spec.model.uri" in world.status("c")["lastError"]


def test_one_created_again_does_not_inherit_what_is_live(world):
    world.create("a", resources=NO_SUCH_PROFILE)
    world.reconcile()
    assert "a" not in world.entries


def test_the_document_has_room_for_the_oldest_and_for_what_is_served(world):
    world.document_limit = len(world.document) + 100
    world.restart()
    world.create("c")
    world.reconcile()
    assert list(world.entries) == ["a", "b", "gateway"]
    assert world.condition("c") == ("False", "ServeConfigFull")
    del world.endpoints["b"]
    world.reconcile()
    world.reconcile()
    assert list(world.entries) == ["a", "c", "gateway"]


def test_what_is_served_goes_before_what_is_older():
    world = World("a", "b", "c")
    world.change("a", suspend=True)
    world.serve()
    world.document_limit = len(world.document) + 100
    world.restart()
    world.change("a", suspend=False)
    world.reconcile()
    assert list(world.entries) == ["b", "c", "gateway"]
    assert world.condition("a") == ("False", "ServeConfigFull")


def grown_beyond_the_room(world):
    """Fill the document, and let `a` want more than there is."""
    world.document_limit = len(world.document)
    world.change("a", model={"uri": f"file:///models/{'x' * 80}"})
    world.reconcile()
    world.follow()
    world.reconcile()
    assert world.condition("a") == ("False", "ServeConfigFull")


def test_after_a_loss_nobody_takes_the_room_of_one_that_was_served(world):
    before = world.document
    grown_beyond_the_room(world)
    world.service["status"] = {"conditions": [{"type": "Ready", "status": "False"}]}
    world.reconcile()
    world.reconcile(after=DEADLINES.settle_seconds)
    assert list(world.entries) == ["gateway"]
    world.follow()
    world.reconcile()
    assert world.document == before


def test_a_version_that_is_kept_for_want_of_room_is_tried_again_when_it_fails(world):
    grown_beyond_the_room(world)
    world.answer(a=details("DEPLOY_FAILED", ready=0))
    world.reconcile()
    world.reconcile(after=FAILED_SECONDS)
    assert list(world.entries) == ["b", "gateway"]
    world.follow()
    world.reconcile(after=DEADLINES.retry_seconds)
    assert list(world.entries) == ["a", "b", "gateway"]
