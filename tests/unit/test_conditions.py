"""What the conditions say of an endpoint, in a small world."""

import pytest

from tests.unit.small_world import BROKEN, DEADLINES, World, application, cluster_status, details


def test_all_that_runs_is_ready(world):
    assert world.condition("a") == ("True", "Serving")
    assert world.condition("a", "Accepted") == ("True", "Accepted")
    assert world.status("a")["url"] == "http://ray/v2/models/a"


def test_of_a_suspended_ray_service_nothing_is_expected(world):
    world.service["status"] = {"conditions": [{"type": "Suspended", "status": "True"}]}
    world.reconcile()
    assert world.condition("a") == ("False", "RayServiceSuspended")


def test_when_kuberay_stops_to_follow_nothing_is_left_ready(world):
    world.service["metadata"]["generation"] += 1
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
    world.reconcile(after=DEADLINES.behind_seconds)
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")


def test_when_the_dashboard_is_unreachable_nothing_is_left_ready(world):
    world.dashboard_overdue = True
    world.reconcile()
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")


def test_a_model_that_runs_behind_a_service_without_endpoints_is_not_ready(world):
    world.service["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.reconcile()
    assert world.condition("a") == ("False", "RayServiceNotReady")


def test_an_unschedulable_replica_says_what_it_asks_for_and_is_stalled_after_a_while(world):
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
    world.reconcile(after=DEADLINES.unschedulable_seconds)
    assert world.condition("a", "Stalled") == ("True", "Unschedulable")
    assert "broken" in world.entries["a"]
    world.restart()
    world.settle(a=application("DEPLOYING", waits))
    assert world.condition("a", "Stalled") == ("True", "Unschedulable")


def test_one_without_a_ready_replica_is_not_ready(world):
    world.answer(a=details("RUNNING", ready=0))
    world.reconcile()
    assert world.condition("a") == ("False", "NoReadyReplica")
    world.answer()
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")


def test_while_a_version_that_runs_is_deployed_anew_what_is_ready_answers(world):
    world.answer(a=details("DEPLOYING", ready=1), b=details("DEPLOYING", ready=0))
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
    assert world.condition("b") == ("False", "Deploying")


def test_a_model_that_has_lost_one_of_its_replicas_answers(world):
    world.answer(a=details("UNHEALTHY", ready=1), b=details("UNHEALTHY", ready=0))
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
    assert world.condition("b") == ("False", "Unhealthy")


@pytest.mark.parametrize("state", ["RECOVERING", "PENDING_MIGRATION"])
def test_replicas_that_answer_count_whatever_serve_does_with_them(world, state):
    # Serve's controller has restarted with the head, or the node is drained.
    deployments = {"Model": {"message": "", "replicas": [{"state": state}]}}
    world.answer(a=details("DEPLOYING", deployments=deployments))
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")


def test_replicas_of_the_version_before_do_not_make_the_next_one_ready(world):
    world.change("a", model={"uri": "file:///models/next"})
    world.reconcile()
    world.answer(a=details("DEPLOYING", ready=1))
    world.reconcile()
    assert world.condition("a") == ("False", "Deploying")
    world.answer()
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")


def test_one_that_may_have_no_replica_is_ready_without_one():
    world = World("a")
    world.change("a", scaling={"minReplicas": 0})
    world.serve()
    world.answer(a=details("RUNNING", ready=0))
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")


def test_ray_s_own_word_counts_although_kuberay_has_stopped(world):
    world.answer()
    world.service["metadata"]["generation"] += 1
    world.reconcile()
    world.reconcile(after=DEADLINES.behind_seconds)
    assert world.condition("a") == ("True", "Serving")
    world.answer(a=details("UNHEALTHY", ready=0))
    world.reconcile()
    assert world.condition("a") == ("False", "Unhealthy")


def test_a_change_that_kuberay_does_not_hand_over_is_not_called_deploying_for_ever(world):
    world.answer()
    world.change("a", batching={"maxBatchSize": 2})
    world.reconcile()
    world.reconcile(after=1)
    world.reconcile(after=DEADLINES.behind_seconds)
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")
    assert world.condition("b") == ("True", "Serving")


def test_an_application_that_ray_has_lost_is_missing(world):
    world.answer()
    del world.dashboard["applications"]["a"]
    world.reconcile()
    assert world.condition("a") == ("Unknown", "ApplicationMissing")


def test_numbers_of_replicas_are_those_of_the_dashboard(world):
    assert "replicas" not in world.status("a")
    world.answer(a=details("RUNNING", ready=2))
    world.reconcile()
    assert (world.status("a")["replicas"], world.status("a")["readyReplicas"]) == (2, 2)


def test_a_suspended_endpoint_is_not_waited_for(world):
    world.change("a", suspend=True)
    world.reconcile()
    assert world.condition("a", "Reconciling") == ("False", "Suspended")
    assert world.condition("a", "Stalled") == ("False", "Suspended")
    assert "Ready" not in [each["type"] for each in world.status("a")["conditions"]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"suspend": True}, "Suspended"), ({"resources": {"profile": "nowhere"}}, "ProfileNotFound")],
)
def test_accepted_is_said_only_of_a_version_that_is_in_the_serve_config(world, change, reason):
    world.change("a", **change)
    world.reconcile()
    assert world.condition("a", "Accepted") == ("False", reason)


def test_a_process_that_has_just_started_does_not_unsay_that_nothing_is_known(world):
    world.dashboard_overdue = True
    world.reconcile()
    world.restart()
    world.dashboard_overdue, world.dashboard_awaited = False, True
    world.reconcile()
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")
    world.dashboard_awaited = False
    world.answer()
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")


def test_a_process_that_has_just_started_takes_kuberay_s_word_for_no_model_that_has_stopped(world):
    """When one node took head and operator, KubeRay says for a while that all is being deployed."""
    world.answer()
    world.reconcile()
    world.restart()
    world.dashboard, world.dashboard_awaited = None, True
    world.service["status"]["activeServiceStatus"] = cluster_status("one", {})
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
    world.follow(a=application("DEPLOYING"))
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
    world.follow(a=application("UNHEALTHY"))
    world.reconcile()
    assert world.condition("a")[0] == "False"
    world.dashboard_awaited = False
    world.follow(a=application("DEPLOYING"))
    world.reconcile()
    assert world.condition("a") == ("False", "Deploying")


def test_numbers_of_replicas_stay_until_a_new_process_knows_better(world):
    world.answer(a=details("RUNNING", ready=2))
    world.reconcile()
    world.restart()
    world.dashboard, world.dashboard_awaited = None, True
    world.reconcile()
    assert (world.status("a")["replicas"], world.status("a")["readyReplicas"]) == (2, 2)
    world.dashboard_awaited = False
    world.reconcile()
    assert "replicas" not in world.status("a")


def test_a_refused_token_is_silence_unless_another_cluster_is_prepared(world):
    world.dashboard_overdue = world.dashboard_locked_out = True
    world.reconcile()
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")
    world.dashboard_overdue = world.dashboard_locked_out = False
    world.answer()
    world.reconcile()
    world.dashboard = None
    world.upgrade()
    world.dashboard_overdue = world.dashboard_locked_out = True
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
