"""A document that Ray refuses as a whole: who is to blame is found, and everybody else gets through."""

from hypothesis import given
from hypothesis import strategies as st

from endpoint_operator.controller.decide.suspicion import Suspicion
from tests.unit.small_world import DEADLINES

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
    world.refused = True
    decision = world.reconcile()
    assert world.document == good
    assert decision.verdicts == {"a"}
    world.refused = False
    world.settle()
    assert world.condition("a") == ("False", "RejectedByRay")
    assert world.condition("a", "Accepted") == ("False", "RejectedByRay")
    assert world.condition("b") == ("True", "Serving")


def test_a_conviction_survives_a_restart(world):
    good = world.document
    change(world, "a")
    world.refused = True
    world.reconcile()
    world.refused = False
    world.restart()
    world.settle()
    assert world.document == good


def test_a_silent_kuberay_convicts_nobody_and_what_was_new_is_tried_again(world):
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


def test_a_change_that_is_met_with_silence_again_in_its_trial_is_convicted(world):
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


def test_a_restarted_operator_goes_back_to_what_has_run(world):
    good = world.document
    change(world, "a")
    world.restart()
    world.reconcile()
    world.reconcile(after=BEHIND_SECONDS)
    assert world.document == good


def test_while_kuberay_is_silent_nothing_is_rewritten_over_and_over(world):
    change(world, "a")
    world.reconcile(after=BEHIND_SECONDS)
    before = world.document
    for _ in range(5):
        world.reconcile(after=BEHIND_SECONDS)
    assert world.document == before


def test_a_suspect_whose_author_wants_something_else_by_now_holds_up_no_other(world):
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
def test_the_guilty_are_found_and_all_others_are_let_in(number, data):
    names = [f"m{index}" for index in range(number)]
    guilty = data.draw(st.sets(st.sampled_from(names)))
    certain = data.draw(st.booleans())
    suspicion = Suspicion()
    suspicion.was_taken({"gateway": "g"})
    convicted = set()
    live = {}
    for _ in range(40 * number):
        live = {name: name for name in names if name not in convicted and name not in suspicion.suspects}
        if guilty & live.keys():
            convicted |= suspicion.was_refused(live | {"gateway": "g"}, {}, certain).keys()
        else:
            suspicion.was_taken(live | {"gateway": "g"})
    assert convicted == guilty
    assert live.keys() == set(names) - guilty


def test_a_suspect_that_wants_something_else_by_now_is_free():
    suspicion = Suspicion()
    suspicion.was_taken({})
    suspicion.was_refused({"a": "1", "b": "1"}, {}, certain=False)
    suspicion.forget_all_but({"a": "2", "b": "1"})
    assert suspicion.suspects == {"b": "1"}
