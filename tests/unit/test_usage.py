"""What of the gateway's report is added to a status: each minute once, whatever happens in between."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_operator.api.profiles import parse_profiles
from endpoint_operator.api.status import Usage, parse_status
from endpoint_operator.controller.decide.usage import STATUSES_A_MINUTE, added, is_due, with_usage
from endpoint_operator.controller.observed.endpoint import parse_observed
from endpoint_operator.controller.observed.usage import Rate, UsageView, rate_of
from endpoint_operator.serveconfig.compiler import compile_entry
from serve_app.contract import ModelUsage, UsageMinute, UsageReport
from tests.harness.builders import CLUSTER, endpoint, manifest
from tests.unit.small_world import World

# 2026-01-01T00:10:00Z, a whole minute.
BEGIN = 1_767_226_200
PROFILES = parse_profiles(
    {
        "profiles": [
            {"name": "cpu", "cpus": 8, "memory": "16Gi", "price": 0.5},
            {"name": "gpu-t4", "accelerators": 4, "cpus": 16, "memory": "64Gi", "price": 3},
            {"name": "free", "cpus": 4, "memory": "8Gi"},
        ]
    }
)


def minute(number, **amounts):
    return UsageMinute(begin=BEGIN + 60 * number, **amounts)


def report(until, *minutes, now=BEGIN + 6000, name="a"):
    """Return a report that is complete for `until` minutes after BEGIN."""
    return UsageReport(now=now, models={name: ModelUsage(until=BEGIN + 60 * until, minutes=list(minutes))})


def observed(created="2026-01-01T00:00:00Z", usage=None, name="a"):
    stored = manifest(name, created=created)
    stored["metadata"] |= {"uid": "1", "resourceVersion": "1"}
    return parse_observed(stored | ({"status": {"usage": usage}} if usage else {}))


def after(endpoint, told, live=None):
    return with_usage(endpoint, UsageView(told, PROFILES.by_name), live, 1)


def entry(**resources):
    return compile_entry(endpoint(resources=resources), CLUSTER)


def restarted(endpoint):
    """Return the endpoint as another operator reads it."""
    stored = endpoint.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return replace(endpoint, status=parse_status(stored))


def test_complete_minutes_are_added():
    told = report(
        2,
        minute(0, requests=1, input_tokens=2, compute_seconds=1.5, replica_seconds=60.0),
        minute(1, requests=2, output_tokens=3, compute_seconds=0.5, replica_seconds=40.0),
        minute(2, requests=50),
    )
    usage = after(observed(), told, entry(memory="4Gi")).status.usage
    assert usage == Usage(
        requests=3,
        input_tokens=2,
        output_tokens=3,
        compute_seconds=2.0,
        replica_seconds=100.0,
        idle_share=0.98,
        memory_share=0.25,
        cost=round(100 * 0.25 * 0.5 / 3600, 9),
        since="2026-01-01T00:10:00Z",
        until="2026-01-01T00:12:00Z",
    )


def test_the_same_report_adds_nothing_again():
    told = report(1, minute(0, requests=1))
    once = after(observed(), told)
    assert after(once, told) is once
    assert after(restarted(once), told).status == once.status


def test_a_report_without_new_minutes_changes_nothing():
    once = after(observed(), report(1, minute(0, requests=1)))
    assert after(once, report(5, minute(0, requests=1))) is once
    assert after(once, UsageReport(now=BEGIN, models={})) is once


amounts = st.fixed_dictionaries({"requests": st.integers(0, 5), "replica_seconds": st.floats(0, 60)})


@given(
    st.lists(amounts, min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 31), st.sampled_from(["", "restart", "lost write", "new cluster"]))),
)
def test_each_minute_is_added_once(minutes, steps):
    """Reports come in any order, also older ones; operators change, writes fail, and Ray starts anew."""
    endpoint, seen = observed(), 0
    told = [minute(number, **each) for number, each in enumerate(minutes)]
    for until, happened in [*steps, (31, "")]:
        # A new Ray cluster knows its own minutes only, which begin somewhere.
        known = told[max(0, seen - 1) :] if happened == "new cluster" else told
        changed = after(endpoint, report(until, *known))
        if happened == "lost write":
            continue
        endpoint = restarted(changed) if happened == "restart" else changed
        seen = max(seen, min(until, len(told)))
    assert endpoint.status.usage.requests == sum(each.requests for each in told)
    assert endpoint.status.usage.replica_seconds == pytest.approx(
        sum(each.replica_seconds for each in told), abs=0.001 * (len(steps) + 1)
    )


def test_minutes_of_an_earlier_object_of_the_name_are_left_out():
    told = report(3, minute(0, requests=1), minute(1, requests=10), minute(2, requests=100))
    usage = after(observed(created="2026-01-01T00:10:30Z"), told).status.usage
    assert (usage.requests, usage.since) == (110, "2026-01-01T00:11:00Z")


def test_minutes_before_a_price_cost_nothing_and_those_after_it_count():
    before = Usage(replica_seconds=3600.0)
    free = added(before, [minute(0, replica_seconds=60.0)], Rate(0.5, 0.5, None), BEGIN)
    assert free.cost is None
    priced = added(free, [minute(1, replica_seconds=60.0)], Rate(0.5, 0.5, 2.0), BEGIN)
    assert priced.cost == round(60 * 0.5 * 2 / 3600, 9)
    assert added(priced, [minute(2, replica_seconds=60.0)], None, BEGIN).cost == priced.cost


def test_what_is_not_known_of_a_replica_leaves_the_memory_share():
    usage = added(Usage(memory_share=0.5), [minute(0, replica_seconds=1.0)], None, BEGIN)
    assert usage.memory_share == 0.5


@pytest.mark.parametrize(
    ("resources", "share", "memory", "price"),
    [
        ({"cpus": 4, "memory": "2Gi"}, 0.5, 0.125, 0.5),
        ({"cpus": 1, "memory": "8Gi"}, 0.5, 0.5, 0.5),
        ({"profile": "gpu-t4", "count": 3, "cpus": 4, "memory": "16Gi"}, 0.75, 0.25, 3),
        ({"profile": "gpu-t4", "count": 0.5, "cpus": 8, "memory": "8Gi"}, 0.5, 0.125, 3),
    ],
)
def test_a_replica_takes_as_much_as_of_what_it_takes_most(resources, share, memory, price):
    assert rate_of(entry(**resources), PROFILES.by_name) == Rate(share, memory, price)


@pytest.mark.parametrize("text", ["", "{}", "[]", entry(profile="gpu-t4").replace("gpu-t4", "gone")])
def test_a_rate_that_cannot_be_known_is_none(text):
    assert rate_of(text, PROFILES.by_name) is None


def test_a_profile_that_was_made_smaller_is_taken_whole():
    small = parse_profiles({"profiles": [{"name": "cpu", "cpus": 1, "memory": "1Gi"}]})
    assert rate_of(entry(cpus=4, memory="2Gi"), small.by_name) == Rate(1.0, 1.0, None)


def test_many_endpoints_take_turns():
    count = 5 * STATUSES_A_MINUTE
    names = [f"model-{number}" for number in range(count)]
    turns = [{name for name in names if is_due(name, BEGIN + 60 * number, count)} for number in range(5)]
    assert set.union(*turns) == set(names)
    assert max(map(len, turns)) < 1.3 * STATUSES_A_MINUTE
    assert sum(map(len, turns)) == count
    assert all(is_due(name, BEGIN, STATUSES_A_MINUTE) for name in names)


@pytest.fixture
def world():
    world = World("a", "b")
    world.serve()
    return world


def use(world, told):
    world.usage = UsageView(told, PROFILES.by_name)
    return world.reconcile()


def test_a_status_gets_the_usage_and_keeps_it(world):
    use(world, report(1, minute(0, requests=1, replica_seconds=60.0)))
    used = world.status("a")["usage"]
    assert (used["requests"], used["cost"]) == (1, round(60 * 0.125 * 0.5 / 3600, 9))
    assert "usage" not in world.status("b")
    world.usage = None
    world.change("a", batching={"maxBatchSize": 2})
    world.settle()
    assert world.status("a")["usage"] == used


def test_a_suspended_endpoint_pays_its_last_minutes_by_the_version_that_ran(world):
    world.change("a", suspend=True)
    world.settle()
    use(world, report(1, minute(0, replica_seconds=60.0)))
    assert world.status("a")["usage"]["cost"] == round(60 * 0.125 * 0.5 / 3600, 9)


def test_a_usage_that_cannot_be_added_concerns_its_endpoint_alone(world, monkeypatch):
    def fail(endpoint, *others):
        assert endpoint.name != "a", "no"
        return endpoint

    monkeypatch.setattr("endpoint_operator.controller.decide.desired.with_usage", fail)
    use(world, report(1, minute(0, requests=1)))
    assert world.condition("a")[1] == "InternalError"
    assert world.condition("b") == ("True", "Serving")
