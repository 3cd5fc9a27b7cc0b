"""Who may take the Lease and who may write, with clocks that are moved by hand."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint_operator.controller.leadership.standing import (
    LONGEST_SECONDS,
    Record,
    Standing,
    Step,
    parse_record,
)

SECONDS = 15
OTHERS = Record("other", SECONDS, "then", "t1", 3)
NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


def waiting(**known):
    return Standing("me", SECONDS, **known)


def leading(renewed_at=100.0):
    return waiting().claimed(Record("me", SECONDS, "then", "t1", 3), renewed_at)


def test_without_a_lease_one_is_made():
    assert waiting().saw(None, 0).step(0) is Step.CREATE


def test_a_holder_that_is_seen_for_the_first_time_gets_the_whole_time():
    seen = waiting().saw(OTHERS, 100)
    assert seen.step(100) is seen.step(114.9) is Step.WAIT
    assert seen.step(115) is Step.REPLACE


def test_each_renewal_that_is_seen_begins_the_time_anew_and_a_look_alone_does_not():
    seen = waiting().saw(OTHERS, 100).saw(OTHERS, 110)
    assert seen.step(115) is Step.REPLACE
    renewed = seen.saw(Record("other", SECONDS, "then", "t2", 3), 114)
    assert renewed.step(128.9) is Step.WAIT
    assert renewed.step(129) is Step.REPLACE


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "", "?"])
def test_the_times_in_a_lease_decide_nothing(renewed):
    seen = waiting().saw(Record("other", SECONDS, renewed, renewed, 3), 100)
    assert seen.step(114.9) is Step.WAIT
    assert seen.step(115) is Step.REPLACE


@pytest.mark.parametrize(
    ("stated", "waits"),
    [(0, SECONDS), (1, SECONDS), (40, 40), (2_000_000_000, LONGEST_SECONDS)],
)
def test_a_holder_gets_its_own_time_within_bounds_and_never_less_than_ours(stated, waits):
    seen = waiting().saw(Record("other", stated, "then", "t1", 3), 0)
    assert seen.step(waits - 0.1) is Step.WAIT
    assert seen.step(waits) is Step.REPLACE


def test_a_lease_that_was_given_up_is_taken_at_once():
    released = parse_record({"spec": leading().release(NOW)})
    assert released.is_released
    assert waiting().saw(OTHERS, 100).saw(released, 101).step(101) is Step.REPLACE


@pytest.mark.parametrize(
    ("edited", "then"),
    [
        (None, Step.CREATE),
        (Record(), Step.REPLACE),
        (Record("", SECONDS, "then", "t1", 3), Step.REPLACE),
        (Record("me", SECONDS, "then", "t1", 3), Step.REPLACE),
    ],
)
def test_a_lease_that_is_deleted_or_emptied_by_hand_frees_no_place(edited, then):
    seen = waiting().saw(OTHERS, 100).saw(edited, 101)
    assert seen.step(114.9) is Step.WAIT
    assert seen.step(115) is then


def test_a_lease_that_is_given_to_somebody_else_by_hand_frees_no_place():
    seen = waiting().saw(Record("other", 40, "then", "t1", 3), 100)
    seen = seen.saw(Record("nobody", 1, "", "by hand"), 101)
    assert seen.step(139.9) is Step.WAIT
    assert seen.step(140) is Step.REPLACE


def test_a_leader_renews_until_two_thirds_of_the_time_are_over_and_its_writes_end_after_five_sixths():
    leader = leading(renewed_at=100)
    assert leader.step(109.9) is Step.REPLACE
    assert leader.step(110) is Step.RESIGN
    assert leader.begin_writes_until == 110
    assert leader.end_writes_until == 112.5


def test_a_leader_resigns_when_somebody_else_holds_the_lease():
    assert leading().saw(OTHERS, 101).step(101) is Step.RESIGN


@pytest.mark.parametrize(("edited", "then"), [(None, Step.CREATE), (Record(), Step.REPLACE)])
def test_a_leader_mends_a_lease_that_was_deleted_or_emptied_by_hand(edited, then):
    assert leading(100).saw(edited, 101).step(101) is then


def test_whoever_does_not_lead_writes_nothing():
    assert not waiting().leads
    assert waiting().end_writes_until == waiting().begin_writes_until == float("-inf")


def test_a_claim_counts_who_held_the_lease():
    time = "2026-01-02T03:04:05.000006Z"
    base = {"holderIdentity": "me", "leaseDurationSeconds": SECONDS, "renewTime": time}
    assert waiting().claim(NOW) == base | {"acquireTime": time, "leaseTransitions": 0}
    taken = waiting().saw(OTHERS, 0).claim(NOW)
    assert taken == base | {"acquireTime": time, "leaseTransitions": 4}
    assert leading().claim(NOW) == base | {"acquireTime": "then", "leaseTransitions": 3}


def test_times_are_written_as_the_api_server_wants_them():
    local = NOW.astimezone(timezone(timedelta(hours=5)))
    assert waiting().claim(local)["renewTime"] == "2026-01-02T03:04:05.000006Z"


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": None, "leaseDurationSeconds": None}])
def test_an_empty_lease_is_read_as_one_without_a_holder(spec):
    assert parse_record({"spec": spec}) == Record()
    assert not parse_record({"spec": spec}).is_released


@dataclass
class Process:
    """What it knows, its clock, and its claim that is on its way, with the version that this replaces."""

    standing: Standing
    ahead: float
    version: int | None = None
    on_its_way: tuple[Record, int, float] | None = None


class Cluster:
    """A Lease with its version, processes with clocks of their own, and the time."""

    def __init__(self, seconds):
        self.record, self.version, self.time = None, 0, 1000.0
        self.processes = [Process(Standing(f"p{n}", each), n * 1e6) for n, each in enumerate(seconds)]

    def wait(self, seconds):
        self.time += seconds

    def look(self, number):
        process = self.processes[number]
        process.standing = process.standing.saw(self.record, self.time + process.ahead)
        process.version = self.version

    def send(self, number):
        process = self.processes[number]
        now = self.time + process.ahead
        if process.version is None or process.standing.step(now) not in (Step.CREATE, Step.REPLACE):
            return
        sent = parse_record({"spec": process.standing.claim(NOW + timedelta(seconds=self.time))})
        process.on_its_way = sent, process.version, now
        process.version = None

    def land(self, number, answered):
        process = self.processes[number]
        if process.on_its_way is None:
            return
        (record, version, began), process.on_its_way = process.on_its_way, None
        if version == self.version:
            self._store(record)
            if answered:
                process.standing = process.standing.claimed(record, began)
                process.version = self.version

    def claim(self, number):
        self.look(number)
        self.send(number)
        self.land(number, answered=True)

    def release(self, number):
        process = self.processes[number]
        if not process.standing.leads or process.standing.step(self.time + process.ahead) is Step.RESIGN:
            return
        if process.version == self.version:
            self._store(parse_record({"spec": process.standing.release(NOW)}))
            process.standing = Standing(process.standing.identity + "+", process.standing.seconds)

    def edit(self, record):
        # Each one looks more often than a Lease lasts, and so knows of whoever holds it.
        for number in range(len(self.processes)):
            self.look(number)
        self._store(record)

    def writers(self):
        return [p for p in self.processes if self.time + p.ahead < p.standing.end_writes_until]

    def _store(self, record):
        self.record, self.version = record, self.version + 1


PROCESS = st.integers(0, 1)
HAND = st.sampled_from([None, Record(), Record("p0", 2, "", "by hand"), Record("nobody", 1, "", "by hand")])
ACTIONS = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 12)),
    st.tuples(st.just("claim"), PROCESS),
    st.tuples(st.just("claim"), PROCESS),
    st.tuples(st.sampled_from(["look", "send", "release"]), PROCESS),
    st.tuples(st.just("land"), PROCESS, st.booleans()),
    st.tuples(st.just("edit"), HAND),
)


@settings(max_examples=1000)
@given(
    st.lists(st.sampled_from([10, 20]), min_size=2, max_size=2), st.lists(ACTIONS, min_size=5, max_size=30)
)
def test_two_never_write_at_once_whatever_is_late_lost_or_edited(seconds, actions):
    cluster = Cluster(seconds)
    for action, *details in actions:
        getattr(cluster, action)(*details)
        assert len(cluster.writers()) <= 1
