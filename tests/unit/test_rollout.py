"""A version that fails is taken back and tried again, and a restarted operator goes on with it."""

import pytest

from endpoint_operator.api.profiles import parse_profiles
from endpoint_operator.controller.decide.rollout import from_time
from tests.unit.small_world import (
    BEGINNING,
    BROKEN,
    DEADLINES,
    FAILED,
    FAILED_SECONDS,
    RETRY_SECONDS,
    application,
    details,
)

FAILS = details("DEPLOY_FAILED", ready=0, message="SourceError: the hub answers 503")


def others(entries, name="a"):
    return {other: entry for other, entry in entries.items() if other != name}


def ready_message(world, name):
    return next(each["message"] for each in world.status(name)["conditions"] if each["type"] == "Ready")


def fail(world, name="a", restart=False):
    """Let the version of `name` fail for as long as it may."""
    world.change(name, model=BROKEN)
    world.settle(**{name: FAILED})
    if restart:
        world.restart()
        world.settle(**{name: FAILED})
    world.reconcile(after=FAILED_SECONDS)


def test_a_version_that_failed_is_rolled_back_and_no_other_entry_changes(world):
    good = world.entries
    world.change("a", model=BROKEN)
    world.settle(a=FAILED)
    assert world.condition("a") == ("False", "DeployFailed")
    assert others(world.entries) == others(good)
    decision = world.reconcile(after=FAILED_SECONDS)
    assert world.entries == good
    assert decision.write_first == {"a"}
    world.settle()
    assert world.condition("a") == ("False", "RolledBack")
    assert world.condition("a", "Stalled")[0] == "True"
    assert "there is no folder" in world.status("a")["lastError"]


def retry(world, pause, **outcomes):
    """Let the pause end, and the next attempt have these outcomes."""
    world.reconcile(after=pause)
    world.settle(**outcomes)
    world.reconcile()


def test_until_the_deadline_a_failure_is_let_be(world):
    world.change("a", model=BROKEN)
    world.settle(a=FAILED)
    tried = world.document
    world.reconcile(after=FAILED_SECONDS - 1)
    assert world.document == tried


def test_a_failure_that_heals_starts_anew(world):
    world.change("a", model=BROKEN)
    world.settle(a=FAILED)
    world.reconcile(after=FAILED_SECONDS - 1)
    world.follow()
    world.reconcile()
    world.follow(a=FAILED)
    tried = world.document
    world.reconcile(after=1)
    assert world.document == tried


def test_a_restarted_operator_neither_tries_the_failed_version_nor_forgets_the_good_one(world):
    good = world.document
    fail(world)
    world.restart()
    world.settle()
    assert world.document == good
    assert world.condition("a") == ("False", "RolledBack")


def test_a_restart_before_the_deadline_still_knows_the_way_back(world):
    good = world.document
    fail(world, restart=True)
    assert world.document == good


def test_what_never_ran_is_withdrawn(world):
    world.create("c", model=BROKEN)
    world.settle(c=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    assert "c" not in world.entries
    world.reconcile()
    assert world.condition("c") == ("False", "Withdrawn")
    assert world.status("c")["url"] == ""


def test_another_version_is_tried_and_then_the_failed_one_again(world):
    fail(world)
    world.change("a", model={"uri": "file:///models/other"})
    world.settle()
    assert world.condition("a") == ("True", "Serving")
    world.change("a", model=BROKEN)
    world.reconcile()
    assert "broken" in world.entries["a"]


def test_to_suspend_and_resume_tries_a_failed_version_again(world):
    fail(world)
    world.change("a", suspend=True)
    world.reconcile()
    assert "a" not in world.entries
    world.change("a", suspend=False)
    world.reconcile()
    assert "broken" in world.entries["a"]


def test_any_change_of_the_spec_is_tried_at_once(world):
    fail(world)
    # The operator has not seen what was in between.
    world.change("a", suspend=True)
    world.change("a", suspend=False)
    world.reconcile()
    assert "broken" in world.entries["a"]


def test_other_profiles_that_change_the_entry_are_tried(world):
    # Without accelerators in the profile, the entry asks for none.
    world.change("a", resources={"profile": "gpu-t4"})
    world.settle(a=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    assert "gpu-t4" not in world.entries["a"]
    world.profiles = parse_profiles(
        {"profiles": [{"name": name, "cpus": 8, "memory": "16Gi"} for name in ("cpu", "gpu-t4")]}
    )
    world.reconcile()
    assert "gpu-t4" in world.entries["a"]


def test_a_good_version_that_fails_in_its_turn_leaves_until_the_next_attempt(world):
    fail(world)
    good = world.entries["a"]
    retry(world, RETRY_SECONDS, a=FAILED)
    assert world.entries["a"] == good
    world.settle(a=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    assert "a" not in world.entries
    world.reconcile()
    assert world.condition("a") == ("False", "Withdrawn")
    assert world.status("a")["lastGood"]["application"] == good
    world.reconcile(after=2 * RETRY_SECONDS)
    assert "broken" in world.entries["a"]


def test_an_edited_memory_cannot_bring_code(world):
    fail(world)
    memory = world.status("a")["lastGood"]
    memory["application"] = memory["application"].replace("serve_app.app:build", "os:system")
    world.reconcile()
    assert "a" not in world.entries


def test_the_next_look_is_due_when_a_deadline_ends(world):
    world.change("a", model=BROKEN)
    world.settle(a=FAILED)
    assert world.reconcile(after=1).requeue_after == FAILED_SECONDS - 1


def test_a_version_that_failed_is_tried_again_with_growing_pauses_up_to_the_limit(world):
    world.create("c", model=BROKEN)
    world.settle(c=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    pauses = []
    for attempt in range(1, 9):
        assert "c" not in world.entries
        world.follow()
        rollout = world.status("c")["rollout"]
        assert (rollout["phase"], rollout["attempts"]) == ("BackingOff", attempt)
        pause = (from_time(rollout["nextAttemptTime"]) - BEGINNING).total_seconds() - world.now
        pauses.append(pause)
        world.reconcile(after=pause - 1)
        assert "c" not in world.entries
        retry(world, 2, c=FAILED)
    expected = [min(RETRY_SECONDS * 2**n, DEADLINES.retry_limit_seconds) for n in range(8)]
    assert pauses == expected


def test_a_version_that_failed_and_runs_at_last_is_served(world):
    fail(world)
    world.restart()
    retry(world, RETRY_SECONDS)
    assert world.condition("a") == ("True", "Serving")
    assert world.status("a")["rollout"] == {
        "fingerprint": world.status("a")["rollout"]["fingerprint"],
        "generation": 2,
        "phase": "Proven",
        "attempts": 0,
        "rejections": 0,
        "failedFallbacks": 0,
        "lastFailureTime": "",
        "nextAttemptTime": "",
        "reason": "",
        "message": "",
    }


def test_when_the_next_attempt_is_stands_in_the_message(world):
    fail(world)
    world.settle()
    message = ready_message(world, "a")
    assert world.status("a")["rollout"]["nextAttemptTime"] in message
    assert "there is no folder" in message


@pytest.mark.parametrize("restarts", [False, True])
def test_what_has_run_comes_back_by_itself_after_a_fault_of_ten_minutes(world, restarts):
    world.answer(a=FAILS)
    ended = world.now + 600
    waited = []
    while world.now < ended:
        desired = world.reconcile()
        world.follow()
        world.answer(a=FAILS)
        assert world.condition("b") == ("True", "Serving")
        assert world.condition("a") in (("False", "DeployFailed"), ("False", "Deploying"))
        if restarts:
            world.restart()
        waited.append(min(desired.requeue_after or 10, 10))
        world.now += waited[-1]
    while world.condition("a") != ("True", "Serving"):
        world.reconcile(after=1)
        world.follow()
        world.answer()
        world.reconcile()
    assert world.now - ended <= 125
    assert world.status("a")["rollout"]["attempts"] == 0


def test_what_has_run_is_not_taken_out_while_a_replica_answers(world):
    before = world.document
    world.answer(a=details("DEPLOY_FAILED", ready=1))
    for _ in range(5):
        world.reconcile(after=FAILED_SECONDS)
    assert world.document == before


def test_what_has_run_is_taken_out_at_once_to_be_tried_again(world):
    world.answer(a=FAILS)
    desired = world.reconcile()
    assert "a" not in world.entries
    assert desired.write_first == {"a"}
    world.reconcile(after=RETRY_SECONDS)
    assert "a" in world.entries


def test_the_version_before_the_last_good_one_answers_while_that_one_fails_again_and_again(world):
    first = world.entries["a"]
    world.change("a", model={"uri": "file:///models/second"})
    world.settle()
    assert world.status("a")["previousGood"]["application"] == first
    world.answer(a=FAILS)
    world.reconcile()
    assert "a" not in world.entries
    world.reconcile(after=RETRY_SECONDS)
    world.answer(a=FAILS)
    world.reconcile()
    assert world.entries["a"] == first
    world.answer()
    world.reconcile()
    assert world.condition("a") == ("False", "RolledBack")
    assert "second" in world.status("a")["lastGood"]["application"]


def test_a_version_that_was_left_out_is_not_tried_while_a_cluster_is_prepared(world):
    fail(world)
    good = world.entries["a"]
    world.upgrade()
    world.reconcile(after=10 * RETRY_SECONDS)
    assert world.entries["a"] == good
    world.promote()
    world.reconcile()
    assert "broken" in world.entries["a"]


def test_running_of_the_version_before_proves_nothing_where_ray_says_what_it_has(world):
    good = world.status("a")["lastGood"]["application"]
    world.answer()
    world.change("a", model=BROKEN)
    world.reconcile()
    # KubeRay's next look fails, so its copy speaks of the version before for ever.
    world.follow()
    for _ in range(3):
        world.reconcile(after=10 * DEADLINES.settle_seconds)
    assert world.status("a")["lastGood"]["application"] == good
    assert world.condition("a") == ("False", "Deploying")


def test_one_with_no_replica_has_not_run_yet(world):
    world.create("c", scaling={"minReplicas": 0})
    world.settle()
    world.answer(c=details(ready=0))
    world.reconcile()
    assert world.condition("c") == ("True", "Serving")
    world.answer(c=details(ready=1))
    world.reconcile()
    assert world.status("c")["lastGood"]


def test_what_the_last_good_version_does_is_said(world):
    fail(world)

    def message():
        world.reconcile()
        return ready_message(world, "a")

    world.follow(a=application("DEPLOYING"))
    assert "is being deployed" in message()
    world.answer()
    assert "answers meanwhile" in message()
    world.answer(a=details("UNHEALTHY", ready=0, message="out of memory"))
    assert "does not answer either: " in message()


def test_a_next_attempt_beyond_the_longest_pause_is_not_waited_for(world):
    fail(world)
    world.settle()
    # The clock was put back, or somebody edited the status.
    world.status("a")["rollout"]["nextAttemptTime"] = "2027-01-01T00:00:00Z"
    world.reconcile()
    world.reconcile(after=DEADLINES.retry_limit_seconds)
    assert "broken" in world.entries["a"]


def test_a_failure_in_the_future_does_not_put_the_rollback_off(world):
    good = world.entries["a"]
    world.change("a", model=BROKEN)
    world.settle(a=FAILED)
    world.status("a")["rollout"]["lastFailureTime"] = "2027-01-01T00:00:00Z"
    world.reconcile()
    world.reconcile(after=FAILED_SECONDS)
    assert world.entries["a"] == good


def test_a_version_that_nobody_could_look_at_is_no_good_version(world):
    good = world.status("a")["lastGood"]
    service, world.service = world.service, None
    world.change("a", model=BROKEN)
    world.reconcile()
    assert world.status("a")["lastGood"] == good
    world.service = service
    world.reconcile()
    assert world.status("a")["lastGood"] == good
