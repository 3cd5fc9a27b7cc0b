"""What a key may ask in a minute and at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.access.limits import KeyLimiter, KeyLimits
from serve_app.http.errors import RateLimitedError


def limiter(requests=0, tokens=0, at_once=0, replicas=1):
    made = KeyLimiter()
    made.limits, made.replicas = KeyLimits(requests, tokens, at_once), replicas
    return made


def begins(limiter, caller, now):
    try:
        limiter.begin(caller, now)
    except RateLimitedError as error:
        return int(error.headers["Retry-After"])
    return None


def test_requests_of_a_minute_come_back_evenly():
    one = limiter(requests=6)
    assert [begins(one, "a", 0.0) for _ in range(7)] == [None] * 6 + [10]
    assert begins(one, "a", 4.0) == 6
    assert begins(one, "a", 10.0) is None
    assert begins(one, "a", 10.0) == 10


def test_keys_have_limits_of_their_own():
    one = limiter(requests=1)
    assert [begins(one, "a", 0.0), begins(one, "a", 0.0), begins(one, "b", 0.0)] == [None, 60, None]


def test_tokens_may_be_owed_and_are_waited_for():
    one = limiter(tokens=600)
    assert begins(one, "a", 0.0) is None
    one.end("a", 900)
    # 300 are owed, and ten come in a second.
    assert begins(one, "a", 0.0) == 31
    assert begins(one, "a", 30.5) is None


def test_requests_at_once_are_counted_until_they_end():
    one = limiter(at_once=2)
    assert [begins(one, "a", 0.0) for _ in range(3)] == [None, None, 1]
    one.end("a", 0)
    assert begins(one, "a", 0.0) is None


def test_one_that_is_refused_counts_for_nothing():
    one = limiter(requests=2, at_once=1)
    assert begins(one, "a", 0.0) is None
    assert begins(one, "a", 0.0) == 1
    one.end("a", 0)
    assert begins(one, "a", 0.0) is None


def test_replicas_share_the_limits_and_each_takes_one_at_least():
    assert [begins(limiter_, "a", 0.0) for limiter_ in [limiter(requests=6, replicas=3)] * 3] == [
        None,
        None,
        30,
    ]
    lone = limiter(requests=1, at_once=1, replicas=5)
    assert begins(lone, "a", 0.0) is None


def test_what_is_left_of_the_whole_limit_stays_when_replicas_come_and_go():
    one = limiter(requests=600, replicas=2)
    one.begin("a", 0.0)
    one.replicas = 1
    assert one.headers("a", 0.0)["x-ratelimit-remaining-requests"] == "598"
    one.replicas = 2
    assert one.headers("a", 0.0)["x-ratelimit-remaining-requests"] == "299"


def test_headers_say_what_is_left_in_openais_words():
    one = limiter(requests=60, tokens=600)
    one.begin("a", 0.0)
    one.end("a", 100)
    assert one.headers("a", 0.0) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "10s",
    }


def test_a_limit_that_changes_holds_at_once():
    one = limiter(requests=60)
    one.begin("a", 0.0)
    one.limits = KeyLimits(requests_per_minute=1)
    assert begins(one, "a", 0.0) is None
    assert begins(one, "a", 0.0) == 60


def test_a_limit_that_is_new_begins_with_a_full_bucket_and_knows_what_is_inside():
    one = limiter(requests=60, at_once=2)
    one.begin("a", 0.0)
    one.limits = KeyLimits(requests_per_minute=60, tokens_per_minute=10, requests_at_once=2)
    assert begins(one, "a", 0.0) is None
    assert begins(one, "a", 0.0) == 1
    one.end("a", 10)
    one.end("a", 0)
    assert begins(one, "a", 0.0) == 6


def test_without_limits_nothing_applies():
    assert not limiter().applies
    assert limiter(at_once=1).applies


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 50)), max_size=60))
def test_never_more_than_the_full_bucket_and_what_has_come_since(arrivals):
    one, now, begun = limiter(requests=12), 0.0, 0
    for pause, _ in arrivals:
        now += pause
        begun += begins(one, "a", now) is None
        assert begun <= 12 + now * 12 / 60 + 1e-6


def test_callers_are_forgotten_once_they_have_all_again():
    one = limiter(requests=60, tokens=60)
    for number in range(100):
        one.begin(f"key-{number}", 0.0)
        one.end(f"key-{number}", 1)
    one.begin("a", 1000.0)
    assert len(one._usage) == 1


@pytest.mark.parametrize("tokens", [0, 10**12])
def test_retry_after_is_a_whole_number_of_seconds_from_one_on(tokens):
    one = limiter(requests=1_000_000, tokens=1)
    one.begin("a", 0.0)
    one.end("a", max(1, tokens))
    assert begins(one, "a", 0.0) >= 1
