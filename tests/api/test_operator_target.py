"""The RayService is deleted, edited, frozen, upgraded or suspended by others; endpoints say what is known."""

import json

import pytest

from tests.harness.kuberay.controller import Head
from tests.harness.kuberay.serve import fails_to_start, runs, sick, waits


def test_without_a_ray_service_endpoints_say_so_and_nothing_is_created(scene):
    scene.remove_service()
    scene.create("a")
    scene.operator.start()
    scene.until(lambda: scene.condition("a") == ("False", "RayServiceNotFound"))
    assert not scene.service.exists
    scene.restore_service()
    scene.serving("a")


def test_a_deleted_ray_service_is_reported_and_served_again_once_it_is_back(scene):
    scene.begin("a", "b")
    scene.remove_service()
    scene.until(lambda: scene.condition("a") == ("False", "RayServiceNotFound"))
    assert scene.operator.running
    scene.restore_service()
    scene.serving("a", "b")


@pytest.mark.parametrize("document", ["", "{}", "applications: []", "nonsense: ["])
def test_an_edited_document_is_put_right_with_an_event(scene, document):
    scene.begin("a")
    scene.service.edit(serveConfigV2=document)
    scene.until(scene.converged)
    assert scene.until(lambda: "DriftCorrected" in scene.events("ray"))
    scene.serving("a")


def test_an_edited_entry_is_put_right(scene):
    scene.begin("a")
    edited = json.loads(scene.service.document)
    edited["applications"][0]["args"] = {"uri": "hf://evil/model"}
    scene.service.edit(serveConfigV2=json.dumps(edited))
    scene.until(scene.converged)
    scene.until(lambda: "DriftCorrected" in scene.events("ray"))


def test_other_fields_that_are_edited_stay(scene):
    scene.begin("a")
    scene.service.edit(excludeHeadPodFromServeSvc=True)
    scene.create("b")
    scene.serving("a", "b")
    assert scene.service.stored["spec"]["excludeHeadPodFromServeSvc"] is True


def test_it_owns_the_document_and_nothing_else(scene):
    scene.begin("a")
    owned = [
        entry["fieldsV1"]
        for entry in scene.service.stored["metadata"]["managedFields"]
        if entry["manager"] == "model-endpoints-operator"
    ]
    assert owned == [{"f:spec": {"f:serveConfigV2": {}}}]


def test_it_leaves_no_mark_on_endpoints_but_their_status(scene):
    scene.begin("a")
    metadata = scene.endpoint("a")["metadata"]
    assert not {"finalizers", "annotations"} & metadata.keys()


def test_before_the_service_has_run_only_the_gateway_is_written(scene):
    scene.ray.head = Head.NOT_READY
    scene.create("a")
    scene.operator.start()
    scene.until(lambda: scene.condition("a") == ("False", "WaitingForGateway"))
    assert scene.service.entries.keys() == {"gateway"}
    scene.ray.head = Head.READY
    scene.serving("a")


def test_a_broken_model_does_not_keep_the_first_service_from_coming_up(scene):
    scene.ray.outcomes["broken"] = fails_to_start("ValueError: no")
    scene.may_leave.add("broken")
    scene.create("broken", "a")
    scene.operator.start()
    scene.until(lambda: scene.is_ready("a"))
    assert scene.service.condition("Ready")[0] == "True"
    scene.until(lambda: scene.condition("broken")[0] == "False")


def test_ready_is_not_said_of_a_version_that_kuberay_has_not_looked_at(scene):
    scene.begin("a")
    scene.ray.outcomes["file:///models/slow"] = runs(after=30)
    scene.change("a", model={"uri": "file:///models/slow"})
    scene.until(lambda: "slow" in scene.service.document)
    # KubeRay reports RUNNING of the old version for a cycle, with the new observedGeneration.
    scene.stays(lambda: not scene.is_ready("a"), seconds=20 * scene.ray.cycle)
    scene.serving("a")


@pytest.mark.parametrize("with_dashboard", [True, False])
def test_a_status_that_kuberay_no_longer_updates_is_unknown(scene, with_dashboard):
    scene.begin("a", "b")
    scene.ray.down = True
    scene.change("a", limits={"maxQueuedRequests": 7})
    scene.until(lambda: scene.condition("a") == ("Unknown", "RayServiceStatusStale"))
    # What Ray itself says of the other one is known, if somebody asks it.
    known = ("True", "Serving") if with_dashboard else ("Unknown", "RayServiceStatusStale")
    scene.until(lambda: scene.condition("b") == known)
    scene.ray.down = False
    scene.serving("a", "b")


def test_with_kuberay_and_the_head_away_nothing_is_left_ready(scene):
    scene.begin("a")
    scene.ray.down = True
    scene.dashboard.down = True
    scene.until(lambda: scene.condition("a") == ("Unknown", "RayServiceStatusStale"))
    # The RayService's status says RUNNING for ever, and a new process has heard nothing else.
    scene.operator.kill()
    scene.operator.start()
    scene.until(scene.operator.is_alive)
    scene.stays(lambda: scene.condition("a")[0] == "Unknown", seconds=4)
    scene.dashboard.down = False
    scene.ray.down = False
    scene.serving("a")


def test_started_while_the_head_is_away_it_does_not_leave_ready_what_was(scene):
    scene.begin("a")
    scene.operator.kill()
    scene.ray.down = True
    scene.dashboard.down = True
    scene.operator.start()
    scene.until(lambda: scene.condition("a") == ("Unknown", "RayServiceStatusStale"))


def test_without_a_ready_replica_nothing_is_ready(scene):
    scene.begin("a", "b")
    # As while the node of its only replica is lost: Serve goes on saying RUNNING.
    scene.ray.lost_replicas.add("a")
    scene.until(lambda: scene.condition("a") == ("False", "NoReadyReplica"))
    assert scene.is_ready("b")
    scene.ray.lost_replicas.clear()
    scene.serving("a")


@pytest.mark.parametrize("with_dashboard", [True, False])
def test_a_status_that_is_frozen_by_a_missing_head_is_unknown(scene, with_dashboard):
    scene.begin("a")
    if not with_dashboard:
        # Nothing tells a missing head from a document that Ray does not take: a newcomer may be held back.
        scene.may_leave.add("b")
    scene.ray.head = Head.MISSING
    scene.create("b")
    scene.until(lambda: scene.condition("a") == ("Unknown", "RayServiceStatusStale"))
    scene.ray.head = Head.READY
    scene.serving("a", "b")


def test_applications_that_vanish_with_the_head_are_not_taken_for_deleted(scene):
    scene.begin("a")
    before = len(scene.documents())
    scene.ray.head = Head.NOT_READY
    scene.until(lambda: scene.condition("a")[0] != "True")
    scene.stays(lambda: len(scene.documents()) == before, seconds=2)
    scene.ray.head = Head.READY
    scene.serving("a")


UPGRADED = ("False", "NoPendingCluster")
BLOCKED = ("True", "DeployFailed")


@pytest.mark.parametrize("with_dashboard", [True, False])
def test_during_an_upgrade_endpoints_that_answer_stay_ready(scene, with_dashboard):
    scene.begin("a")
    scene.ray.upgrade({"a": runs(after=20)})
    scene.until(lambda: scene.service.condition("UpgradeInProgress")[0] == "True")
    scene.stays(lambda: scene.is_ready("a"), seconds=1)
    scene.until(lambda: scene.service.condition("UpgradeInProgress") == UPGRADED)
    scene.serving("a")


@pytest.mark.parametrize("with_dashboard", [True, False])
def test_a_cluster_on_which_no_model_runs_is_never_promoted_and_a_rollback_costs_nothing(
    scene, with_dashboard
):
    names = ("a", "b", "c")
    scene.begin(*names)
    active = scene.service.active_cluster
    scene.ray.upgrade({name: fails_to_start("ImportError: libcuda") for name in names})
    scene.until(lambda: {scene.condition(name, "UpgradeBlocked") for name in names} == {BLOCKED})
    scene.stays(lambda: scene.service.active_cluster == active and scene.is_ready(*names), seconds=3)
    assert scene.converged()
    scene.ray.roll_back()
    scene.until(lambda: scene.service.condition("UpgradeInProgress") == UPGRADED)
    scene.serving(*names)
    assert {scene.condition(name, "UpgradeBlocked") for name in names} == {("", "")}


def test_one_model_that_is_missing_on_the_new_cluster_holds_the_upgrade(scene):
    scene.begin("a", "b")
    active = scene.service.active_cluster
    scene.ray.upgrade({"b": fails_to_start("SourceError: there is no folder /models/b")})
    scene.until(lambda: scene.condition("b", "UpgradeBlocked") == BLOCKED)
    scene.stays(lambda: scene.service.active_cluster == active and scene.is_ready("b"), seconds=3)
    assert scene.condition("a", "UpgradeBlocked") == ("", "")


def test_a_model_that_failed_before_does_not_hold_an_upgrade_up(scene):
    scene.begin("a")
    scene.ray.outcomes["b"] = fails_to_start("ValueError: no")
    scene.may_leave.add("b")
    scene.create("b")
    scene.until(lambda: scene.condition("b")[1] == "DeployFailed")
    active = scene.service.active_cluster
    scene.ray.upgrade()
    scene.until(lambda: scene.service.active_cluster != active)
    scene.until(lambda: scene.is_ready("a"))


def test_a_model_that_found_no_place_before_does_not_hold_an_upgrade_up(scene):
    scene.begin("a")
    scene.ray.outcomes["b"] = waits("b", {"GPU": 1.0}, {"CPU": 3.0})
    scene.may_leave.add("b")
    scene.create("b")
    scene.until(lambda: scene.condition("b") == ("False", "Unschedulable"))
    active = scene.service.active_cluster
    scene.ray.upgrade()
    scene.until(lambda: scene.service.active_cluster != active)
    scene.until(lambda: scene.is_ready("a"))
    # Afterwards it waits for its place again.
    scene.until(lambda: "b" in scene.service.entries)


def test_after_a_loss_of_the_ray_cluster_the_models_that_run_come_back_and_the_others_later(scene):
    scene.begin("a")
    scene.ray.outcomes["b"] = waits("b", {"GPU": 1.0}, {"CPU": 3.0})
    scene.create("b")
    scene.until(lambda: scene.condition("b") == ("False", "Unschedulable"))
    scene.may_leave |= {"a", "b"}
    scene.ray.delete_clusters()
    scene.until(lambda: scene.service.entries.keys() == {"gateway"})
    scene.until(lambda: scene.condition("a") == ("False", "WaitingForGateway"))
    scene.until(lambda: scene.is_ready("a"))
    scene.until(lambda: "b" in scene.service.entries)
    assert scene.service.condition("Ready")[0] == "True"


def test_a_ray_service_restored_with_its_document_is_followed(scene):
    scene.begin("a", "b")
    scene.change("a", batching={"maxBatchSize": 2})
    scene.serving("a", "b")
    document = scene.service.document
    scene.may_leave |= {"a", "b"}
    scene.remove_service()
    scene.restore_service(document)
    scene.serving("a", "b")


def test_a_suspended_ray_service_is_reported(scene):
    scene.begin("a")
    # Its clusters are gone, so the gateway comes first when it is resumed.
    scene.may_leave.add("a")
    scene.ray.suspended = True
    scene.until(lambda: scene.condition("a") == ("False", "RayServiceSuspended"))
    scene.ray.suspended = False
    scene.serving("a")


def test_an_application_deleted_in_ray_is_brought_back(scene):
    scene.begin("a", "b")
    scene.may_push = True
    scene.ray.delete_application("a")
    scene.until(lambda: not scene.is_ready("a"))
    scene.until(lambda: scene.is_ready("a", "b"))


def test_an_unhealthy_model_says_so_and_recovers(scene):
    scene.begin("a", "b")
    scene.ray.outcomes["file:///models/sick"] = sick()
    scene.change("a", model={"uri": "file:///models/sick"})
    scene.until(lambda: scene.condition("a") == ("False", "Unhealthy"))
    assert scene.is_ready("b")
    scene.change("a", model={"uri": "file:///models/sentiment"})
    scene.serving("a", "b")


def test_a_model_that_finds_no_place_says_what_it_asks_for(scene):
    scene.begin("a")
    scene.ray.outcomes["b"] = waits("b", {"CPU": 1.0, "GPU": 1.0}, {"CPU": 3.0})
    scene.create("b")
    scene.until(lambda: scene.condition("b") == ("False", "Unschedulable"))
    assert "GPU" in scene.status("b")["lastError"]
    assert scene.is_ready("a")
