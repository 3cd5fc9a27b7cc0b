"""Numbers that are added up in plain Python, and overlapping times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.replica.busy_time import BusyTime
from serve_app.replica.tallies import Counter, Histogram


def test_a_counter_has_a_number_for_each_combination_of_labels():
    counter = Counter("requests", "Requests.", "protocol", "status")
    counter.add(1, "predict", "200")
    counter.add(2.5, "predict", "200")
    counter.add(1, "embed", "200")
    assert counter.values == {("predict", "200"): 3.5, ("embed", "200"): 1}


def test_buckets_are_cumulative_with_upper_bounds_as_prometheus_writes_them():
    histogram = Histogram("seconds", "Seconds.", (0.5, 1, 10))
    for value in (0.1, 0.5, 0.7, 10, 11):
        histogram.observe(value)
    assert list(histogram.buckets()) == [("0.5", 2), ("1.0", 3), ("10.0", 4), ("+Inf", 5)]
    assert (histogram.count, histogram.sum) == (5, pytest.approx(22.3))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30))
def test_time_that_intervals_share_counts_once(intervals):
    busy = BusyTime()
    added = sum(busy.add(began, seconds) for began, seconds in sorted(intervals, key=sum))
    assert added == len({second for began, seconds in intervals for second in range(began, began + seconds)})
