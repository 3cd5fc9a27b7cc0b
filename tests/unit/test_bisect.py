"""A Serve config that Ray rejects as a whole: the version at fault is found, and all others get through."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from endpoint_operator.api.status import Rollout, RolloutPhase
from endpoint_operator.controller.decide.bisect import on_accepted, on_rejected
from endpoint_operator.controller.decide.rollout import Clock
from endpoint_operator.controller.decide.stopwatch import Stopwatch
from endpoint_operator.controller.observed.rejection import Rejection
from tests.unit.small_world import DEADLINES, RETRY_SECONDS

BEHIND_SECONDS = DEADLINES.behind_seconds


def change(world, *names):
    for name in names:
        world.change(name, batching={"maxBatchSize": 2})
    world.reconcile()
    # The answer to the write brings the next look.
    world.reconcile()


def test_with_rays_own_word_a_single_change_is_taken_back_at_once(world):
    good = world.document
    change(world, "a")
    world.rejection = Rejection.INVALID
    desired = world.reconcile()
    assert world.document == good
    assert desired.write_first == {"a"}
    world.rejection = Rejection.NONE
    world.settle()
    assert world.condition("a") == ("False", "RejectedByRay")
    assert world.condition("a", "Accepted") == ("False", "RejectedByRay")
    assert world.condition("b") == ("True", "Serving")


def test_a_rejected_version_stays_out_over_a_restart_and_is_tried_again(world):
    good = world.document
    change(world, "a")
    changed = world.document
    world.rejection = Rejection.INVALID
    world.reconcile()
    world.rejection = Rejection.NONE
    world.restart()
    world.settle()
    assert world.document == good
    # Ray may also have rejected it for a reason of its own, which has passed.
    world.reconcile(after=RETRY_SECONDS)
    assert world.document == changed
    world.settle()
    assert world.condition("a") == ("True", "Serving")


def test_an_answer_400_that_says_nothing_against_the_config_marks_nobody_the_first_time(world):
    good = world.document
    change(world, "a")
    world.rejection = Rejection.UNEXPLAINED
    world.reconcile()
    world.rejection = Rejection.NONE
    assert world.document == good
    assert world.status("a")["rollout"]["phase"] == "Quarantined"
    world.settle()
    world.settle()
    assert world.condition("a") == ("True", "Serving")


def test_a_silent_kuberay_marks_nobody_and_what_was_new_is_tried_again(world):
    good = world.document
    change(world, "a")
    changed = world.document
    world.reconcile(after=BEHIND_SECONDS)
    assert world.document == good
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")
    world.settle()
    assert world.document == changed
    world.settle()
    assert world.condition("a") == ("True", "Serving")


def test_while_the_head_is_away_nothing_is_taken_back(world):
    change(world, "a")
    changed = world.document
    world.dashboard_overdue = True
    world.reconcile(after=BEHIND_SECONDS)
    assert world.document == changed


def test_a_change_that_ray_has_according_to_its_own_answer_is_not_blamed(world):
    change(world, "a")
    changed = world.document
    world.answer()
    world.reconcile(after=BEHIND_SECONDS)
    assert world.document == changed
    assert world.condition("a") == ("True", "Serving")


def test_a_change_that_is_met_with_silence_alone_again_is_taken_back(world):
    good = world.document
    change(world, "a")
    world.reconcile(after=BEHIND_SECONDS)
    world.follow()
    world.reconcile()
    world.reconcile()
    world.reconcile(after=BEHIND_SECONDS)
    assert world.document == good
    world.settle()
    assert world.condition("a") == ("False", "RejectedByRay")


def test_a_restarted_operator_goes_on_with_the_search(world):
    good = world.document
    change(world, "a")
    world.reconcile(after=BEHIND_SECONDS)
    world.restart()
    world.follow()
    world.reconcile()
    world.reconcile()
    world.restart()
    world.reconcile()
    world.reconcile(after=BEHIND_SECONDS)
    assert world.document == good
    world.settle()
    assert world.condition("a") == ("False", "RejectedByRay")


def test_while_kuberay_is_silent_nothing_is_rewritten_over_and_over(world):
    change(world, "a")
    world.reconcile(after=BEHIND_SECONDS)
    before = world.document
    for _ in range(5):
        world.reconcile(after=BEHIND_SECONDS)
    assert world.document == before


def test_a_quarantined_version_whose_author_wants_another_by_now_holds_up_no_other(world):
    change(world, "a", "b")
    world.reconcile(after=BEHIND_SECONDS)
    world.follow()
    world.change("a", batching={"maxBatchSize": 3})
    world.reconcile()
    for _ in range(3):
        world.settle()
    assert [world.condition(name) for name in "ab"] == [("True", "Serving")] * 2
    assert '"max_batch_size":2' in world.entries["b"]


@given(st.integers(1, 12), st.data())
def test_those_at_fault_are_found_and_all_others_are_let_in(number, data):
    names = [f"m{index}" for index in range(number)]
    at_fault = data.draw(st.sets(st.sampled_from(names)))
    certain = data.draw(st.booleans())
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC), DEADLINES, Stopwatch())
    rollouts = {name: Rollout(fingerprint=name) for name in names}
    live = []
    for _ in range(40 * number):
        out = (RolloutPhase.QUARANTINED, RolloutPhase.BACKING_OFF)
        live = [name for name in names if rollouts[name].phase not in out]
        if at_fault & set(live):
            rollouts |= on_rejected(rollouts, live, certain, clock)
        else:
            has_it = {"phase": RolloutPhase.SETTLING, "rejections": 0}
            rollouts |= {name: rollouts[name].model_copy(update=has_it) for name in live}
            rollouts |= on_accepted(rollouts, names, live)
    assert {name for name in names if rollouts[name].phase is RolloutPhase.BACKING_OFF} == at_fault
    assert set(live) == set(names) - at_fault
