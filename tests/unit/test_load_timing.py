import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_operator.load.timing import Answered, percentile, poisson_times, summarize

SOME_TIMES = st.lists(st.floats(0, 1000), min_size=1)


def test_a_percentile_is_a_value_that_was_measured():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_there_is_no_percentile_of_nothing():
    assert math.isnan(percentile([], 0.5))


@given(SOME_TIMES, st.floats(0.01, 1))
def test_as_many_values_as_asked_are_not_above_a_percentile(values, share):
    at = percentile(values, share)
    assert sum(value <= at for value in values) >= share * len(values)
    assert sum(value < at for value in values) < share * len(values)


def test_random_arrivals_come_at_their_rate_and_the_same_at_every_run():
    times = poisson_times(rate=50, start=7, end=107, seed=3)
    assert times == sorted(times)
    assert times[0] > 7
    assert times[-1] < 107
    assert len(times) == 5000
    assert times == poisson_times(rate=50, start=7, end=107, seed=3)
    assert times != poisson_times(rate=50, start=7, end=107, seed=4)


def test_random_arrivals_are_as_irregular_as_poissons():
    times = poisson_times(rate=100, start=0, end=100, seed=1)
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_request_counts_by_the_share_of_its_time_that_was_measured():
    requests = [Answered(0, 2, True), Answered(2, 4, True), Answered(4, 8, True)]
    summary = summarize(requests, start=1, end=5)
    assert summary.rps == pytest.approx((0.5 + 1 + 0.25) / 4)


def test_latencies_are_those_of_requests_that_began_meanwhile():
    requests = [Answered(0, 9, True), Answered(1, 2, True), Answered(2, 4, True), Answered(5, 6, True)]
    summary = summarize(requests, start=1, end=5)
    assert (summary.requests, summary.p50_ms, summary.p99_ms) == (2, 1000, 2000)


def test_failures_are_counted_and_are_no_answers():
    requests = [Answered(1, 2, True), Answered(1, 1.1, False)]
    summary = summarize(requests, start=0, end=4)
    assert (summary.failures, summary.rps, summary.p50_ms) == (1, 0.25, 1000)


def test_clients_that_never_pause_give_the_rate_of_their_latency():
    requests = [Answered(0.5 * step, 0.5 * (step + 1), True) for step in range(40)] * 4
    assert summarize(requests, start=3.3, end=12.1).rps == pytest.approx(8)
