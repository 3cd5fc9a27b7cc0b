"""`modelendpoint usage`: its lines, for people and for programs."""

import json

import pytest

from endpoint_operator.cli import cluster
from endpoint_operator.cli.usage import HEADER, usage_rows
from tests.harness.builders import manifest
from tests.unit.test_cli import modelendpoint

USAGE = {
    "requests": 12,
    "inputTokens": 34,
    "outputTokens": 56,
    "computeSeconds": 7.25,
    "replicaSeconds": 100,
    "idleShare": 0.9275,
    "memoryShare": 0.125,
    "cost": 0.0125,
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-01-01T00:02:00Z",
}


def stored(name="a", **usage):
    return manifest(name, resources={"profile": "cpu"}) | ({"status": {"usage": usage}} if usage else {})


def cells(endpoint):
    [row] = usage_rows([endpoint])
    return dict(zip(HEADER, row.cells, strict=True))


def test_a_line_tells_what_the_status_says():
    assert cells(stored(**USAGE)) == {
        "NAME": "a",
        "PROFILE": "cpu",
        "REQUESTS": "12",
        "TOKENS IN": "34",
        "TOKENS OUT": "56",
        "COMPUTE S": "7.2",
        "REPLICA S": "100",
        "IDLE": "93%",
        "MEMORY": "12%",
        "COST": "0.0125",
        "SINCE": "2026-01-01T00:00:00Z",
    }


def test_what_is_not_known_is_a_dash():
    assert set(list(cells(stored()).values())[2:]) == {"-"}
    unknown = {"cost", "idleShare", "memoryShare"}
    told = cells(stored(**{name: value for name, value in USAGE.items() if name not in unknown}))
    assert (told["COST"], told["IDLE"], told["MEMORY"], told["REQUESTS"]) == ("-", "-", "-", "12")


def test_a_program_gets_the_fields_of_the_status():
    [row] = usage_rows([stored(**USAGE)])
    assert row.to_json() == {"name": "a", "runtime": "", "profile": "cpu", "usage": USAGE}
    [row] = usage_rows([stored()])
    assert row.to_json()["usage"] is None


@pytest.fixture
def there(monkeypatch):
    """A cluster with two endpoints in its namespace."""

    class Cluster:
        namespace = "models"

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            return None

        async def endpoints(self):
            return [stored("b"), stored("a", **USAGE)]

    monkeypatch.setattr(cluster, "connect_reader", lambda context, namespace: Cluster())


def test_all_endpoints_are_shown_by_name(there):
    code, output, complaint = modelendpoint("usage")
    assert (code, complaint) == (0, "")
    assert [line.split()[0] for line in output.splitlines()] == ["NAME", "a", "b"]


def test_those_that_are_named_are_shown_and_a_missing_one_is_told(there):
    code, output, complaint = modelendpoint("usage", "b", "c", "-o", "json")
    assert code == 1
    assert [each["name"] for each in json.loads(output)["endpoints"]] == ["b"]
    assert complaint == "namespace 'models' has no ModelEndpoint 'c'\n"
