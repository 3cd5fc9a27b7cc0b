"""Timers of facts, which start again when a fact breaks off."""

from endpoint_operator.controller.decide.stopwatch import Stopwatch


def test_a_fact_is_timed_until_it_breaks_off():
    watch = Stopwatch()
    watch.begin(0)
    assert not watch.held("fact", 10)
    assert watch.seconds_to_next == 10
    watch.begin(6)
    assert not watch.held("fact", 10)
    assert watch.seconds_to_next == 4
    watch.begin(10)
    assert watch.held("fact", 10)
    assert watch.seconds_to_next is None
    watch.begin(11)
    watch.begin(12)
    assert not watch.held("fact", 10)


def test_what_was_noted_when_a_fact_began_stays_until_it_breaks_off():
    watch = Stopwatch()
    watch.begin(0)
    assert watch.noted("fact", 1) == 1
    watch.begin(1)
    assert watch.noted("fact", 2) == 1
    watch.begin(2)
    watch.begin(3)
    assert watch.noted("fact", 3) == 3


def test_the_next_round_is_due_when_anything_is():
    watch = Stopwatch()
    watch.begin(5)
    watch.wake_after(7)
    watch.held("fact", 9)
    assert watch.seconds_to_next == 7
