"""How an operator wins, keeps, loses and gives up a Lease, on one that is kept in memory."""

import asyncio
import copy

import pytest

from endpoint_operator.controller.leadership.election import Election, LeadershipLostError, new_identity
from endpoint_operator.controller.leadership.standing import parse_record
from endpoint_operator.controller.probes import Heartbeat
from endpoint_operator.kube.errors import ConflictError, KubeError, NotFoundError
from endpoint_operator.kube.gate import WriteGate, WritesEndedError
from tests.harness.builders import run, until

SECONDS = 15


class MemoryLease:
    """The requests of `LeaseClient`; the API server refuses the same ones."""

    name = "operator"

    def __init__(self):
        self.stored = None
        self.versions = 0
        self.error = None
        # Whether answers to writes are lost.
        self.deaf = False

    async def read(self):
        self._meet()
        return copy.deepcopy(self.stored)

    async def create(self, spec):
        self._meet()
        if self.stored is not None:
            raise ConflictError("exists")
        return self.put(spec)

    async def replace(self, manifest, spec):
        self._meet()
        if self.stored is None:
            raise NotFoundError("gone")
        if manifest["metadata"] != self.stored["metadata"]:
            raise ConflictError("changed")
        return self.put(spec)

    def put(self, spec):
        self.versions += 1
        self.stored = {"metadata": {"resourceVersion": str(self.versions)}, "spec": dict(spec)}
        if self.deaf:
            raise KubeError("the answer is lost")
        return copy.deepcopy(self.stored)

    @property
    def record(self):
        return parse_record(self.stored)

    def _meet(self):
        if self.error:
            raise self.error


class Operator:
    """One that takes part, with a clock that is moved by hand."""

    def __init__(self, lease, name, seconds=SECONDS):
        self.time = 1000.0
        self.gate = WriteGate(lambda: self.time)
        self.heartbeat = Heartbeat()
        self.election = Election(lease, name, seconds, self.gate, self.heartbeat, lambda: self.time)

    async def step(self, later=0.0):
        self.time += later
        await self.election.step()
        return self.election.leads

    async def may_write(self):
        try:
            async with self.gate.write():
                return True
        except WritesEndedError:
            return False


@pytest.fixture
def lease():
    return MemoryLease()


@pytest.fixture
def operator(lease):
    return Operator(lease, "one")


@pytest.fixture
def other(lease):
    return Operator(lease, "two")


def test_one_leads_and_the_other_one_takes_over_when_it_has_waited_long_enough(lease, operator, other):
    async def story():
        assert await operator.step()
        assert await operator.may_write()
        assert not await other.step()
        assert not await other.step(SECONDS - 0.1)
        assert not await other.may_write()
        assert await other.step(0.2)
        assert await other.may_write()
        assert (lease.record.holder, lease.record.transitions) == ("two", 1)

    run(story())


def test_renewals_keep_it_and_change_neither_its_beginning_nor_its_count(lease, operator, other):
    async def story():
        await operator.step()
        before = lease.record
        for _ in range(9):
            assert await operator.step(2.5)
            assert not await other.step(2.5)
        assert (lease.record.acquired, lease.record.transitions) == (before.acquired, 0)
        assert lease.record.renewed != before.renewed

    run(story())


def test_without_renewals_writes_end_and_it_resigns(lease, operator):
    async def story():
        await operator.step()
        lease.error = KubeError("cannot be reached")
        with pytest.raises(KubeError, match="cannot be reached"):
            await operator.step(9.9)
        assert await operator.may_write()
        operator.time += 0.2
        assert not await operator.may_write()
        lease.error = None
        with pytest.raises(LeadershipLostError, match="could not be renewed in time"):
            await operator.step()

    run(story())


def test_a_claim_whose_answer_was_lost_is_taken_up_again(lease, operator):
    async def story():
        lease.deaf = True
        with pytest.raises(KubeError):
            await operator.step()
        assert not await operator.may_write()
        lease.deaf = False
        assert await operator.step()
        assert (lease.record.holder, lease.record.transitions) == ("one", 0)

    run(story())


def test_a_renewal_whose_answer_was_lost_does_not_count(lease, operator):
    async def story():
        await operator.step()
        lease.deaf = True
        with pytest.raises(KubeError):
            await operator.step(9)
        operator.time += 2
        assert not await operator.may_write()

    run(story())


def test_a_lease_that_was_deleted_is_made_again_by_its_holder(lease, operator, other):
    async def story():
        await operator.step()
        await other.step()
        lease.stored = None
        assert not await other.step()
        # The renewal fails, and the next one makes it anew.
        await operator.step(1)
        assert await operator.step(1)
        assert lease.record.holder == "one"

    run(story())


def test_a_lease_that_somebody_else_holds_ends_the_writes_at_once(lease, operator):
    async def story():
        await operator.step()
        lease.put({"holderIdentity": "nobody"})
        with pytest.raises(LeadershipLostError, match="held by nobody now"):
            await operator.step(1)
        assert not await operator.may_write()

    run(story())


def test_given_up_it_is_free_at_once(lease, operator, other):
    async def story():
        await operator.step()
        await other.step()
        await operator.gate.drain(1)
        await operator.election.release()
        assert lease.record.is_released
        assert await other.step()

    run(story())


def test_while_a_write_is_not_over_it_is_not_given_up(lease, operator):
    async def story():
        await operator.step()
        async with operator.gate.write():
            await operator.gate.drain(0.01)
            await operator.election.release()
        await operator.election.release()
        assert lease.record.holder == "one"

    run(story())


def test_whoever_does_not_lead_gives_up_nothing(lease, operator, other):
    async def story():
        await operator.step()
        await other.step()
        await other.election.release()
        assert lease.record.holder == "one"

    run(story())


def test_a_lease_that_has_run_out_is_not_given_up_for_somebody_else(lease, operator, other):
    async def story():
        await operator.step()
        await other.step()
        assert await other.step(SECONDS)
        operator.time += SECONDS
        await operator.election.release()
        assert lease.record.holder == "two"

    run(story())


def test_it_waits_through_errors_and_says_each_once(lease, caplog):
    async def story():
        operator = Operator(lease, "one", seconds=0.05)
        lease.error = KubeError("cannot be reached")
        before = operator.heartbeat.timestamp
        winning = asyncio.create_task(operator.election.win())
        await asyncio.sleep(0.05)
        assert operator.heartbeat.timestamp == before
        lease.error = None
        await winning
        assert operator.heartbeat.timestamp > before

    run(story())
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == ["cannot be reached"]


def test_it_keeps_the_lease_until_that_cannot_be_renewed(lease):
    async def story():
        operator = Operator(lease, "one", seconds=0.1)
        await operator.election.win()
        keeping = asyncio.create_task(operator.election.keep())
        await until(lambda: lease.versions > 3)
        lease.error = KubeError("cannot be reached")
        operator.time += 1
        with pytest.raises(LeadershipLostError):
            await keeping

    run(story())


def test_no_two_processes_have_the_same_identity():
    assert new_identity() != new_identity()
