"""What models have used, from the gateway's report into the statuses: each minute once."""

import time

import pytest

from endpoint_operator.api.types import PLURAL
from serve_app.contract import ModelUsage, UsageMinute, UsageReport
from tests.harness.operator_process import SHORT

MINUTE = 60


@pytest.fixture
def settings():
    return {**SHORT, "USAGE_SECONDS": "0.3"}


class Meter:
    """A model that answers ten requests a minute, from the minute after next on."""

    def __init__(self, scene, *names):
        self.scene = scene
        self.names = names
        self.begin = (int(time.time()) // MINUTE + 2) * MINUTE

    def complete(self, minutes):
        """Let so many minutes be complete, and a further one have begun."""
        until = self.begin + minutes * MINUTE
        known = [
            UsageMinute(begin=begin, requests=10, compute_seconds=6.0, replica_seconds=60.0)
            for begin in range(self.begin, until + MINUTE, MINUTE)
        ]
        usage = ModelUsage(until=until, minutes=known)
        self.scene.dashboard.usage = UsageReport(now=until, models=dict.fromkeys(self.names, usage))

    def shows(self, minutes):
        """Wait until each status has the usage of so many minutes."""
        self.scene.until(lambda: {requests(self.scene, name) for name in self.names} == {10 * minutes})


def requests(scene, name):
    return scene.status(name).get("usage", {}).get("requests", 0)


def writes(scene, name):
    return len(scene.proxy.writes(f"/{PLURAL}/{name}/status"))


def test_each_minute_is_in_the_status_once_across_restarts(scene):
    scene.begin("a", "b")
    meter = Meter(scene, "a", "b")
    meter.complete(2)
    meter.shows(2)
    scene.operator.kill()
    scene.operator.start()
    scene.serving("a", "b")
    meter.complete(3)
    meter.shows(3)
    scene.stays(lambda: requests(scene, "a") == 30, 1)
    usage = scene.status("a")["usage"]
    assert (usage["replicaSeconds"], usage["computeSeconds"], usage["idleShare"]) == (180, 18, 0.9)
    assert (usage["memoryShare"], "cost" in usage) == (0.125, False)


def test_a_minute_is_one_write_and_none_if_nothing_was_used(scene):
    scene.begin("a", "b")
    meter = Meter(scene, "a")
    scene.settle()
    meter.complete(0)
    before = writes(scene, "a"), writes(scene, "b")
    scene.stays(lambda: (writes(scene, "a"), writes(scene, "b")) == before, 1)
    meter.complete(1)
    meter.shows(1)
    scene.stays(lambda: (writes(scene, "a"), writes(scene, "b")) == (before[0] + 1, before[1]), 1)


def test_a_price_of_the_profile_makes_a_cost_and_a_metric(scene):
    scene.operator.add_profile({"name": "dear", "cpus": 4, "memory": "8Gi", "price": 36})
    scene.create("a", resources={"profile": "dear"})
    scene.operator.start()
    scene.serving("a")
    meter = Meter(scene, "a")
    meter.complete(1)
    meter.shows(1)
    # A quarter of a worker, for a minute.
    assert scene.status("a")["usage"]["cost"] == 0.15
    series = f'model_endpoints_endpoint_cost_total{{name="a",namespace="{scene.namespace}"}} 0.15'
    scene.until(lambda: series in scene.operator.metrics())


def test_another_object_of_the_name_begins_anew(scene):
    scene.begin("a")
    meter = Meter(scene, "a")
    meter.begin -= 10 * MINUTE
    meter.complete(5)
    scene.stays(lambda: "usage" not in scene.status("a"), 1)


def test_a_gateway_that_says_nothing_stops_nothing(scene):
    scene.begin("a")
    scene.stays(lambda: scene.is_ready("a"), 1)
    assert scene.operator.output().count("does not say what models have used") == 1
