"""A version that fails is taken back, and nothing else is; a restarted operator forgets nothing of it."""

from endpoint_operator.api.profiles import parse_profiles
from tests.unit.small_world import BROKEN, FAILED, FAILED_SECONDS


def others(entries, name="a"):
    return {other: entry for other, entry in entries.items() if other != name}


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
    assert decision.verdicts == {"a"}
    world.settle()
    assert world.condition("a") == ("False", "RolledBack")
    assert world.condition("a", "Stalled")[0] == "True"
    assert "there is no folder" in world.status("a")["lastError"]


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


def test_another_generation_of_the_failed_version_is_not_tried(world):
    fail(world)
    good = world.document
    world.change("a", model=BROKEN)
    world.reconcile()
    assert world.document == good


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


def test_a_good_version_that_fails_in_its_turn_is_withdrawn(world):
    fail(world)
    world.settle(a=FAILED)
    world.reconcile(after=FAILED_SECONDS)
    world.reconcile()
    assert "a" not in world.entries
    assert world.condition("a") == ("False", "Withdrawn")


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
