"""What minutes of load say about memory."""

from dataclasses import replace

import pytest

from bench.generation.soak import (
    SETTLED,
    Growth,
    Minute,
    all_points,
    conclusion,
    growth,
    line,
    replica_points,
)

MINUTE = Minute(
    minute=7,
    hours=0.125,
    requests=30,
    failures=0,
    problem="",
    tokens_per_s=31.96,
    leaving=8,
    left=7,
    replica_mib=712.34,
    all_mib=1500.0,
)
# What comes before the minutes that count, far from any line through those.
BEFORE = [(0.0, 1.0), (0.25, 900.0), (0.5, -3.0), (0.75, 5.0)]


def test_the_line_of_equal_steps_is_their_step():
    points = [(1.0 + step / 4, 100.0 + 3 * step) for step in range(9)]
    assert growth(BEFORE + points) == Growth(mib_an_hour=12.0, mib=24.0)


def test_memory_that_stays_does_not_grow():
    assert growth(BEFORE + [(1.0, 64.0), (2.0, 64.0), (3.0, 64.0)]) == Growth(0.0, 0.0)


def test_all_minutes_that_count_decide_the_line_and_two_the_difference():
    # Of hours -1, 0 and 1 around their mean and sizes -2, 4 and -2 around theirs: the products add up to 0.
    assert growth(BEFORE + [(1.0, 10.0), (2.0, 16.0), (3.0, 10.0)]) == Growth(0.0, 0.0)
    # Of hours -3, -1, 1 and 3 and sizes 0, 0, 0 and 40: 3 x 40 / (9 + 1 + 1 + 9).
    assert growth(BEFORE + [(1.0, 0.0), (3.0, 0.0), (5.0, 0.0), (7.0, 40.0)]) == Growth(6.0, 40.0)


def test_the_slope_is_by_the_hour_and_not_by_the_minute():
    # A minute may take longer than others, as when its last streams take long to end.
    assert growth(BEFORE + [(1.0, 0.0), (1.5, 1.0), (3.5, 5.0)]) == Growth(2.0, 5.0)


@pytest.mark.parametrize("count", range(SETTLED + 1))
def test_of_fewer_than_two_minutes_that_count_nothing_is_said(count):
    points = (BEFORE + [(1.0, 10.0)])[:count]
    assert growth(points) is None
    assert conclusion("replica", growth(points)) == "replica: nothing can be said before minute 6"


def test_points_are_hours_and_mib():
    minutes = [MINUTE, replace(MINUTE, hours=0.25, replica_mib=1.5, all_mib=2.5)]
    assert replica_points(minutes) == [(0.125, 712.34), (0.25, 1.5)]
    assert all_points(minutes) == [(0.125, 1500.0), (0.25, 2.5)]


def test_a_minute_is_one_line():
    assert line(MINUTE) == (
        "minute 7: 30 requests, 0 failures, 32.0 tokens/s, 7 of 8 others left, "
        "replica 712.3 MiB, all 1500.0 MiB"
    )
    assert "2 failures (broken off)," in line(replace(MINUTE, failures=2, problem="broken off"))


def test_the_conclusion_has_both_numbers_with_their_sign():
    assert conclusion("all", Growth(-1.234, 20.0)) == (
        "all: -1.23 MiB an hour from minute 5 on, +20.0 MiB between minute 5 and the last one"
    )
