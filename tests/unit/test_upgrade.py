"""A new Ray cluster on which models do not run takes nothing from the one that answers."""

from endpoint_operator.api.profiles import parse_profiles
from tests.unit.small_world import (
    BROKEN,
    DEADLINES,
    ERROR,
    FAILED,
    FAILED_SECONDS,
    WAITS,
    application,
    details,
)


def blocked(world, name):
    """Return reason and message of UpgradeBlocked; None if the endpoint does not hold the upgrade."""
    for condition in world.status(name)["conditions"]:
        if condition["type"] == "UpgradeBlocked":
            assert condition["status"] == "True"
            return condition["reason"], condition["message"]
    return None


def test_while_a_cluster_is_prepared_what_answers_stays_ready(world):
    world.upgrade(a=application("DEPLOYING"), b=application("DEPLOYING"))
    world.reconcile()
    assert world.condition("a") == world.condition("b") == ("True", "Serving")
    assert blocked(world, "a") is None
    world.follow_pending()
    world.promote()
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")


def test_an_operator_that_starts_while_a_cluster_is_prepared_takes_no_endpoint_for_missing(world):
    """KubeRay says nothing of the active cluster, and the dashboard has not been asked yet."""
    world.upgrade()
    world.service["status"]["pendingServiceStatus"] = {
        "rayClusterName": "two",
        "rayClusterStatus": {"head": {}},
    }
    world.restart()
    world.reconcile()
    assert world.condition("a") == world.condition("b") == ("True", "Serving")


def test_all_models_that_fail_on_the_new_cluster_hold_the_upgrade_for_ever(world):
    before = world.document
    world.upgrade(a=FAILED, b=FAILED)
    for _ in range(10):
        decision = world.reconcile(after=FAILED_SECONDS)
    assert world.document == before
    assert decision.blocking == {"a", "b"}
    for name in ("a", "b"):
        assert world.condition(name) == ("True", "Serving")
        reason, message = blocked(world, name)
        assert reason == "DeployFailed"
        assert "two" in message
        assert ERROR.partition(": ")[2] in message
        assert "lastGood" in world.status(name)
        assert world.status(name)["rollout"]["phase"] == "Proven"


def test_a_rollback_of_the_upgrade_leaves_no_trace(world):
    before = world.document
    world.upgrade(a=FAILED, b=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    world.follow()
    decision = world.reconcile()
    assert world.document == before
    assert decision.blocking == frozenset()
    assert blocked(world, "a") is None
    assert world.condition("a") == ("True", "Serving")


def test_the_time_of_a_failure_on_the_pending_cluster_does_not_count_on_the_active_one(world):
    world.upgrade(a=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    world.follow(a=FAILED)
    world.reconcile(after=1)
    assert "a" in world.entries
    assert world.condition("a") == ("False", "DeployFailed")


def test_a_restarted_operator_holds_the_upgrade_too(world):
    world.upgrade(a=FAILED)
    world.reconcile()
    world.restart()
    for _ in range(3):
        world.reconcile(after=FAILED_SECONDS)
    assert "a" in world.entries
    assert world.condition("a") == ("True", "Serving")
    assert blocked(world, "a")[0] == "DeployFailed"


def test_ready_is_what_the_active_cluster_says_of_itself(world):
    world.upgrade(a=application("DEPLOYING"), b=application("DEPLOYING"))
    world.answer(a=details("RUNNING", ready=0))
    world.reconcile()
    assert world.condition("a") == ("Unknown", "RayServiceUpgrading")
    assert world.condition("b") == ("True", "Serving")
    world.answer()
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")


def test_a_version_that_the_active_cluster_serves_holds_the_upgrade_whatever_was_said_of_it_before(world):
    world.follow(a=application("DEPLOYING"))
    world.reconcile()
    before = world.document
    world.upgrade(a=FAILED)
    world.answer()
    for _ in range(3):
        world.reconcile(after=FAILED_SECONDS)
    assert world.document == before
    assert blocked(world, "a")[0] == "DeployFailed"


def test_an_answer_of_the_cluster_before_is_not_taken_for_that_of_the_new_one(world):
    world.upgrade()
    world.answer()
    world.dashboard_cluster = "one"
    world.promote()
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
    world.service["status"]["activeServiceStatus"]["applicationStatuses"]["a"] = FAILED
    world.reconcile()
    assert world.condition("a") == ("False", "DeployFailed")


def test_one_that_cannot_be_scheduled_on_the_new_cluster_is_named(world):
    world.upgrade(a=WAITS)
    world.reconcile()
    assert blocked(world, "a")[0] == "Unschedulable"
    assert blocked(world, "b") is None


def test_what_failed_before_the_upgrade_does_not_hold_it_up(world):
    world.follow(a=FAILED)
    world.reconcile()
    world.upgrade(a=FAILED)
    world.reconcile()
    assert world.condition("a") == ("False", "DeployFailed")
    assert blocked(world, "a") is None
    world.reconcile(after=FAILED_SECONDS)
    assert "a" not in world.entries
    assert world.condition("a") == ("Unknown", "RayServiceUpgrading")
    world.follow_pending()
    world.promote()
    world.reconcile()
    assert "a" in world.entries


def test_a_new_endpoint_that_fails_there_is_taken_back_and_does_not_hold_the_upgrade_up(world):
    world.upgrade()
    world.create("c", model=BROKEN)
    world.reconcile()
    world.follow_pending(c=FAILED)
    world.reconcile()
    world.reconcile(after=10)
    assert world.condition("c") == ("False", "DeployFailed")
    world.reconcile(after=FAILED_SECONDS)
    world.reconcile(after=FAILED_SECONDS)
    assert "c" not in world.entries
    assert "a" in world.entries


def test_a_change_during_an_upgrade_waits_for_the_new_cluster(world):
    world.upgrade()
    world.change("a", model={"uri": "hf://org/newer"})
    world.reconcile()
    world.follow_pending()
    world.reconcile()
    world.reconcile(after=10)
    status, reason = world.condition("a")
    assert (status, reason) == ("Unknown", "RayServiceUpgrading")
    # It has answered nobody yet.
    assert "newer" not in world.status("a")["lastGood"]["application"]
    world.promote()
    world.reconcile()
    assert "newer" in world.status("a")["lastGood"]["application"]
    assert world.condition("a") == ("True", "Serving")


def test_a_changed_version_that_fails_there_goes_back_to_the_one_that_answers(world):
    before = world.document
    world.upgrade()
    world.change("a", model=BROKEN)
    world.reconcile()
    world.follow_pending(a=FAILED)
    world.reconcile()
    world.reconcile(after=10)
    world.reconcile(after=FAILED_SECONDS)
    assert world.document == before
    assert world.condition("a") == ("False", "RolledBack")


GPU_IS_GONE = parse_profiles({"profiles": [{"name": "cpu", "cpus": 8, "memory": "16Gi"}]})


def with_a_profile_that_goes(world, report):
    """Serve a model of a profile that an upgrade takes away."""
    world.create("c", resources={"profile": "gpu-t4"})
    world.settle()
    world.follow(c=report)
    world.answer(c=details(report["status"], ready=int(report["status"] == "RUNNING")))
    world.reconcile()
    world.profiles = GPU_IS_GONE
    world.upgrade(c=WAITS)
    world.reconcile()


def test_one_that_answers_and_whose_profile_is_taken_away_is_named(world):
    with_a_profile_that_goes(world, application("RUNNING"))
    for _ in range(3):
        world.reconcile(after=FAILED_SECONDS)
    assert "c" in world.entries
    assert world.condition("c") == ("False", "ProfileNotFound")
    assert blocked(world, "c")[0] == "Unschedulable"


def test_one_that_does_not_answer_and_whose_profile_is_taken_away_is_in_nobody_s_way(world):
    with_a_profile_that_goes(world, application("DEPLOYING"))
    assert "c" in world.entries
    world.reconcile(after=FAILED_SECONDS)
    assert world.entries.keys() == {"a", "b", "gateway"}
    assert world.condition("c") == ("False", "ProfileNotFound")
    assert blocked(world, "c") is None


def with_a_fallback_that_fails(world):
    """Let the version of `a` fail, and then the good one that takes its place."""
    world.change("a", model=BROKEN)
    world.settle(a=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    world.follow(a=FAILED)
    world.reconcile()


def test_a_good_version_that_did_not_answer_in_the_place_of_a_bad_one_is_in_nobody_s_way(world):
    with_a_fallback_that_fails(world)
    world.answer(a=details("DEPLOY_FAILED", ready=0))
    world.reconcile()
    world.upgrade(a=FAILED)
    for _ in range(3):
        world.reconcile(after=FAILED_SECONDS)
    assert "a" not in world.entries


def test_a_good_version_that_answers_in_the_place_of_a_bad_one_holds_the_upgrade_and_is_named(world):
    world.change("a", model=BROKEN)
    world.settle(a=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    world.follow()
    world.answer()
    world.reconcile()
    world.upgrade(a=FAILED)
    for _ in range(3):
        world.reconcile(after=FAILED_SECONDS)
    assert "a" in world.entries
    assert blocked(world, "a")[0] == "DeployFailed"


def test_a_pending_cluster_of_which_nothing_is_heard_is_named_after_a_while(world):
    world.answer()
    world.upgrade()
    del world.service["status"]["pendingServiceStatus"]["applicationStatuses"]
    world.reconcile()
    assert world.reconcile(after=FAILED_SECONDS).blocking == frozenset()
    assert world.reconcile(after=DEADLINES.unschedulable_seconds).blocking == {"a", "b"}
    assert blocked(world, "a")[0] == "ApplicationMissing"
    assert world.condition("a") == ("True", "Serving")


def test_one_that_is_deployed_for_ever_on_the_pending_cluster_is_named(world):
    world.answer()
    world.upgrade(a=application("DEPLOYING"))
    world.reconcile()
    assert world.reconcile(after=DEADLINES.unschedulable_seconds).blocking == {"a"}
    assert blocked(world, "a")[0] == "Deploying"


def test_a_gateway_that_fails_on_the_pending_cluster_is_said_to_hold_the_upgrade(world):
    world.answer()
    world.upgrade(gateway=FAILED)
    assert world.reconcile().blocking == {"a", "b"}
    assert "gateway is DEPLOY_FAILED" in blocked(world, "a")[1]


def test_ready_is_not_said_while_the_service_has_no_endpoints(world):
    world.upgrade()
    world.service["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.reconcile()
    assert world.condition("a") == ("False", "RayServiceNotReady")


def test_one_that_is_suspended_meanwhile_is_told_that_the_old_cluster_goes_on(world):
    world.answer()
    world.upgrade(b=FAILED)
    world.reconcile()
    world.change("a", suspend=True)
    world.reconcile()
    assert "the present one goes on" in world.status("a")["conditions"][0]["message"]
