"""What a replica counts of itself, minute by minute, and that it writes it, also when it stops."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.records import BatchRecord, RequestRecord
from serve_app.replica import usage as module
from serve_app.replica.usage import UsageCounter, UsageWriter
from serve_app.replica.usage_store import HISTORY_SECONDS, parse_value
from tests.harness.builders import run, until

# A whole minute of the wall clock.
MINUTE = 1_700_000_040


class Clocks:
    """A monotonic clock, and a wall clock that is set so that it begins with a minute."""

    def __init__(self):
        self.now = 1000.0
        self.offset = MINUTE - 1000.0

    def monotonic(self):
        return self.now

    def wall(self):
        return self.now + self.offset


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def counter(clocks):
    return UsageCounter(clocks.monotonic, clocks.wall)


def request(status=200, **members):
    record = RequestRecord("id", "predict", **members)
    record.status = status
    return record


def batch(began, ended):
    return BatchRecord((), 1, 1, began, ended - began)


def minutes(counter):
    return {each.begin - MINUTE: each for each in counter.snapshot().minutes}


def test_requests_and_tokens_count_in_the_minute_in_which_they_end(counter, clocks):
    clocks.now += 59
    counter.add_request(request(input_tokens=3, output_tokens=4))
    counter.add_request(request(422, input_tokens=5))
    clocks.now += 2
    counter.add_request(request(input_tokens=7))
    first, second = minutes(counter).values()
    assert (first.requests, first.input_tokens, first.output_tokens) == (2, 8, 4)
    assert (second.requests, second.input_tokens, second.output_tokens) == (1, 7, 0)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_what_was_refused_or_failed_is_no_request(counter, status):
    counter.add_request(request(status, input_tokens=3))
    assert [(each.requests, each.input_tokens) for each in minutes(counter).values()] in ([], [(0, 0)])


@pytest.mark.parametrize("verb", ["info", "metadata", "ModelReady"])
def test_a_question_about_the_model_is_no_request_to_it(counter, verb):
    record = request()
    record.verb = verb
    counter.add_request(record)
    assert minutes(counter) == {}


def test_the_seconds_of_the_replica_are_split_at_the_minutes(counter, clocks):
    clocks.now += 30
    assert minutes(counter)[0].replica_seconds == 30
    clocks.now += 100.5
    assert [each.replica_seconds for each in minutes(counter).values()] == [60, 60, 10.5]


def test_batches_side_by_side_count_once(counter, clocks):
    for began, ended in ((0, 2), (1, 3), (5, 6), (4, 7), (0, 8)):
        clocks.now = 1000.0 + ended
        counter.add_batch(batch(1000.0 + began, 1000.0 + ended))
    assert minutes(counter)[0].compute_seconds == 8


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=30).map(
        lambda pairs: sorted(((begin, begin + length) for begin, length in pairs), key=lambda pair: pair[1])
    )
)
def test_a_replica_is_never_busier_than_all_the_time(spans):
    clocks = Clocks()
    counter = UsageCounter(clocks.monotonic, clocks.wall)
    for began, ended in spans:
        clocks.now = 1000.0 + ended
        counter.add_batch(batch(1000.0 + began, 1000.0 + ended))
    busy = {second for began, ended in spans for second in range(began, ended)}
    assert sum(each.compute_seconds for each in minutes(counter).values()) == len(busy)


def test_a_clock_that_is_set_moves_what_comes_and_counts_no_second_twice(counter, clocks):
    clocks.now += 10
    counter.snapshot()
    clocks.offset += 600
    clocks.now += 10
    assert {begin: each.replica_seconds for begin, each in minutes(counter).items()} == {0: 10, 600: 10}


def test_two_hours_are_kept(counter, clocks):
    clocks.now += 2 * HISTORY_SECONDS
    usage = counter.snapshot()
    assert usage.minutes[0].begin == MINUTE + HISTORY_SECONDS + 60
    assert usage.written == MINUTE + 2 * HISTORY_SECONDS


class Store:
    """Notes what is put into it, and fails while it is to."""

    def __init__(self):
        self.written = []
        self.failing = False

    def put(self, key, value):
        if self.failing:
            raise ConnectionError("no head")
        self.written.append((key, parse_value(value)))


async def story_of(counter, store, is_ending, seconds, scene):
    task = asyncio.create_task(UsageWriter(counter, store, "a/1", is_ending, seconds).run())
    try:
        await scene()
    finally:
        task.cancel()


def test_it_is_written_again_and_again_under_its_key(counter, clocks):
    store = Store()

    async def scene():
        await until(lambda: len(store.written) == 1)
        clocks.now += 5
        counter.add_request(request(input_tokens=2))
        await until(lambda: store.written[-1][1].minutes)
        key, usage = store.written[-1]
        assert (key, usage.ending) == ("a/1", False)
        await until(lambda: store.written[-1][1].minutes[0].input_tokens == 2)

    run(story_of(counter, store, lambda: False, 0.01, scene))


def test_a_replica_that_is_asked_to_stop_writes_at_once(counter, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    store, ending = Store(), False

    async def scene():
        nonlocal ending
        await until(lambda: len(store.written) == 1)
        ending = True
        await until(lambda: len(store.written) > 3)
        assert all(usage.ending for _, usage in store.written[1:])

    run(story_of(counter, store, lambda: ending, 3600, scene))


def test_a_store_that_is_away_is_said_once_and_loses_nothing(counter, caplog):
    store = Store()
    store.failing = True

    async def scene():
        counter.add_request(request())
        await asyncio.sleep(0.1)
        store.failing = False
        await until(lambda: store.written)
        assert store.written[0][1].minutes[0].requests == 1

    with caplog.at_level("WARNING", "ray.serve"):
        run(story_of(counter, store, lambda: False, 0.01, scene))
    assert len(caplog.records) == 1
