"""The rules that keep models apart, watched in a small world."""

from endpoint_operator.controller.decide.decision import Decider
from tests.unit.small_world import BROKEN, DEADLINES, FAILED, FAILED_SECONDS, World, application

NO_SUCH_PROFILE = {"profile": "nowhere"}


def test_before_the_service_has_run_there_is_only_the_gateway():
    world = World("a")
    world.look()
    assert list(world.entries) == ["gateway"]
    assert world.condition("a") == ("False", "WaitingForGateway")
    world.follow()
    world.look()
    assert list(world.entries) == ["a", "gateway"]


def test_a_restarted_operator_does_not_go_back_to_the_gateway_alone(world):
    before = world.document
    world.service["status"] = {}
    world.restart()
    world.look()
    assert world.document == before


def test_all_that_runs_is_ready(world):
    assert world.condition("a") == ("True", "Serving")
    assert world.condition("a", "Accepted") == ("True", "Accepted")
    assert world.status("a")["url"] == "http://ray/v2/models/a"


def test_nothing_that_stays_is_written_again(world):
    before = [dict(world.status(name)) for name in world.endpoints], world.document
    world.look(after=1000)
    world.restart()
    world.look()
    assert before == ([dict(world.status(name)) for name in world.endpoints], world.document)


def test_a_version_that_fits_nowhere_leaves_the_one_before(world):
    before = world.document
    world.change("a", resources=NO_SUCH_PROFILE)
    world.look()
    assert world.document == before
    assert world.condition("a", "Accepted") == ("False", "ProfileNotFound")
    assert "nowhere" in world.status("a")["lastError"]


def test_an_endpoint_that_never_fitted_is_left_out_and_changes_nothing(world):
    before = world.document
    world.create("c", resources=NO_SUCH_PROFILE)
    world.look()
    assert world.document == before
    assert world.condition("c", "Stalled") == ("True", "ProfileNotFound")


def test_an_endpoint_that_is_larger_than_a_worker_says_so(world):
    world.create("c", resources={"memory": "999Gi"})
    world.look()
    assert world.condition("c", "Accepted") == ("False", "ExceedsProfile")
    assert "a worker of profile 'cpu' has 16Gi" in world.status("c")["lastError"]


def test_an_invalid_spec_that_got_past_the_api_server_is_left_out_with_its_reason(world):
    world.create("c")
    world.endpoints["c"]["spec"]["model"]["uri"] = "ftp://x"
    world.look()
    assert "c" not in world.entries
    assert world.condition("c") == ("False", "InvalidSpec")
    assert "spec.model.uri" in world.status("c")["lastError"]


def test_one_created_again_does_not_inherit_what_is_live(world):
    world.create("a", resources=NO_SUCH_PROFILE)
    world.look()
    assert "a" not in world.entries


def test_running_of_the_version_before_is_not_taken_for_the_new_one(world):
    good = world.status("a")["lastGood"]["application"]
    world.change("a", batching={"maxBatchSize": 2})
    world.look()
    world.follow()
    world.look()
    assert world.condition("a") == ("False", "Deploying")
    assert world.status("a")["lastGood"]["application"] == good
    world.look(after=DEADLINES.settle_seconds)
    assert world.condition("a") == ("True", "Serving")


def test_a_change_of_one_leaves_the_others_ready(world):
    world.change("a", batching={"maxBatchSize": 2})
    world.look()
    assert world.condition("b") == ("True", "Serving")


def test_without_a_ray_service_nothing_is_decided_for_it(world):
    world.service = None
    assert world.look().document is None
    assert world.condition("a") == ("False", "RayServiceNotFound")


def test_a_new_ray_service_starts_with_the_gateway(world):
    world.service = World().service | {
        "metadata": {"uid": "another", "resourceVersion": "9", "generation": 1}
    }
    world.look()
    assert list(world.entries) == ["gateway"]


def test_a_suspended_ray_service_keeps_its_document(world):
    before = world.document
    world.service["status"] = {"conditions": [{"type": "Suspended", "status": "True"}]}
    world.look()
    assert world.document == before
    assert world.condition("a") == ("False", "RayServiceSuspended")


def test_when_kuberay_stops_to_follow_nothing_is_left_ready(world):
    world.service["metadata"]["generation"] += 1
    world.look()
    assert world.condition("a") == ("True", "Serving")
    world.look(after=DEADLINES.behind_seconds)
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")


def test_when_the_head_is_lost_nothing_is_left_ready(world):
    world.dashboard_unreachable = True
    world.look()
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")


def test_applications_that_vanish_are_unknown_and_stay_in_the_document(world):
    before = world.document
    world.service["status"]["activeServiceStatus"]["applicationStatuses"] = {}
    world.look()
    world.look(after=10 * DEADLINES.missing_seconds)
    assert world.condition("a") == ("Unknown", "ApplicationMissing")
    assert world.document == before


def test_an_application_that_ray_lacks_is_handed_over_again_in_another_string(world):
    before = world.document
    del world.service["status"]["activeServiceStatus"]["applicationStatuses"]["a"]
    world.look()
    assert world.document == before
    world.look(after=DEADLINES.missing_seconds)
    assert world.document == f"{before}\n"
    world.service["status"]["observedGeneration"] += 1
    world.look()
    assert world.document == f"{before}\n"
    world.look(after=DEADLINES.missing_seconds)
    assert world.document == before


def test_during_an_upgrade_nobody_knows_and_a_failure_is_still_taken_back(world):
    world.create("c", model=BROKEN)
    world.settle(c=FAILED)
    status = world.service["status"]
    status["pendingServiceStatus"] = status["activeServiceStatus"] | {"rayClusterName": "two"}
    status["activeServiceStatus"] = {"rayClusterName": "one"}
    world.look()
    assert world.condition("a") == ("Unknown", "RayServiceUpgrading")
    assert world.condition("c") == ("False", "DeployFailed")
    world.look(after=FAILED_SECONDS)
    assert "c" not in world.entries


def test_the_document_has_room_for_the_oldest_and_for_what_is_served(world):
    world.document_limit = len(world.document) + 100
    world.restart()
    world.create("c")
    world.look()
    assert list(world.entries) == ["a", "b", "gateway"]
    assert world.condition("c") == ("False", "ServeConfigFull")
    del world.endpoints["b"]
    world.look()
    world.look()
    assert list(world.entries) == ["a", "c", "gateway"]


def test_what_is_served_goes_before_what_is_older():
    world = World("a", "b", "c")
    world.change("a", suspend=True)
    world.serve()
    world.document_limit = len(world.document) + 100
    world.restart()
    world.change("a", suspend=False)
    world.look()
    assert list(world.entries) == ["b", "c", "gateway"]
    assert world.condition("a") == ("False", "ServeConfigFull")


def test_a_model_that_runs_behind_a_service_without_endpoints_is_not_ready(world):
    world.service["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.look()
    assert world.condition("a") == ("False", "RayServiceNotReady")


def test_one_that_is_being_deleted_leaves(world):
    world.endpoints["a"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    decision = world.look()
    assert "a" not in world.entries
    assert decision.absent == frozenset()


def test_what_no_endpoint_stands_for_is_named_before_it_goes(world):
    del world.endpoints["a"]
    assert world.look().absent == {"a"}


def test_a_document_of_another_shape_is_replaced(world):
    before = world.document
    world.service["spec"]["serveConfigV2"] = "applications: none"
    world.look()
    assert world.document == before


def test_two_operators_do_not_unsay_what_the_faster_one_knows(world):
    ours, theirs = world.decider, Decider(DEADLINES, world.document_limit, "http://ray")
    world.decider = theirs
    world.look()
    world.change("a", limits={"maxQueuedRequests": 7})
    world.decider = ours
    world.settle()
    assert world.condition("a") == ("True", "Serving")
    before = world.status("a")
    world.decider = theirs
    world.look()
    assert world.status("a") == before


def test_a_replica_without_a_place_says_what_it_asks_for_and_is_stalled_after_a_while(world):
    waits = (
        "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to be scheduled. "
        "This may be due to waiting for the cluster to auto-scale. "
        'Resources required for each replica: {"CPU": 2, "GPU": 1}, total resources available: {"CPU": 4}. '
        "Use `ray status` for more details."
    )
    world.change("a", model=BROKEN)
    world.settle(a=application("DEPLOYING", waits))
    assert world.condition("a") == ("False", "Deploying")
    assert '{"CPU": 2, "GPU": 1}, and the cluster has {"CPU": 4}' in world.status("a")["lastError"]
    world.look(after=DEADLINES.unschedulable_seconds)
    assert world.condition("a", "Stalled") == ("True", "Unschedulable")
    assert "broken" in world.entries["a"]
    world.restart()
    world.settle(a=application("DEPLOYING", waits))
    assert world.condition("a", "Stalled") == ("True", "Unschedulable")
