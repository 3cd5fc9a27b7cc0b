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
