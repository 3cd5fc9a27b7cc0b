"""What a model has used, from the replica's count through Ray's store to the gateway's answer."""

import psutil
import pytest

from tests.serve.service import GOOD, MODELS, manifest

# Replicas write every 20 seconds.
SECONDS = 25


@pytest.fixture
def token(service):
    """The token of the Ray that the command has started; its replicas know it."""
    [replica] = service.replica_pids("sentiment")
    return psutil.Process(replica).environ()["RAY_AUTH_TOKEN"]


def usage(service, token, name="sentiment"):
    """Return the sums over all minutes of a model's usage."""
    answer = service.http.get("/v2/usage", headers={"Authorization": f"Bearer {token}"})
    minutes = answer.raise_for_status().json()["models"].get(name, {"minutes": []})["minutes"]
    members = ("requests", "input_tokens", "output_tokens", "compute_seconds", "replica_seconds")
    return {name: sum(minute.get(name, 0) for minute in minutes) for name in members}


def test_requests_are_in_the_usage_of_their_model(service, token):
    before = usage(service, token)
    for _ in range(2):
        service.http.post("/v2/models/sentiment/predict", json=GOOD).raise_for_status()
    service.http.get("/v2/models/sentiment").raise_for_status()

    def told():
        now = usage(service, token)
        used = {name: now[name] - before[name] for name in now}
        return used if used["requests"] else None

    used = service.wait_for("the usage", told, SECONDS)
    assert used["requests"] == 2
    assert used["input_tokens"] > 2
    assert used["output_tokens"] == 0
    assert 0 < used["compute_seconds"] < used["replica_seconds"] <= SECONDS + 5


def test_a_replica_that_is_stopped_loses_nothing(service, token):
    service.write("brief.yaml", manifest("brief", f"file://{MODELS / 'sentiment'}", "text-classification"))
    service.wait_ready("brief")
    try:
        service.http.post("/v2/models/brief/predict", json=GOOD).raise_for_status()
    finally:
        service.remove("brief.yaml")
    service.wait_for("its removal", lambda: "brief" not in service.models())
    assert usage(service, token, "brief")["requests"] == 1


def test_nobody_gets_it_without_the_token(service):
    for headers in ({}, {"Authorization": "Bearer other"}):
        answer = service.http.get("/v2/usage", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_path")
