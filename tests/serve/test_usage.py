"""What a model has used, from the replica's count through Ray's store to the gateway's answer."""

import json
import subprocess
from contextlib import contextmanager

import psutil
import pytest

from tests.serve.service import GOOD, MODELS, command, manifest

# Replicas write every 20 seconds.
SECONDS = 25


@pytest.fixture
def token(service):
    """The token of the Ray that the command has started; its replicas know it."""
    [replica] = service.replica_pids("sentiment")
    return psutil.Process(replica).environ()["RAY_AUTH_TOKEN"]


def usage(service, token, name):
    """Return the sums over all minutes of a model's usage."""
    answer = service.http.get("/v2/usage", headers={"Authorization": f"Bearer {token}"})
    minutes = answer.raise_for_status().json()["models"].get(name, {"minutes": []})["minutes"]
    members = ("requests", "input_tokens", "output_tokens", "compute_seconds", "replica_seconds")
    return {name: sum(minute.get(name, 0) for minute in minutes) for name in members}


@pytest.fixture
def brief(service):
    """An endpoint that nobody else asks, until the end of the block; other tests' requests may come late."""

    @contextmanager
    def serving(name):
        model = manifest(name, f"file://{MODELS / 'sentiment'}", "text-classification")
        service.write(f"{name}.yaml", model)
        service.wait_ready(name)
        try:
            yield
        finally:
            service.remove(f"{name}.yaml")
        service.wait_for("its removal", lambda: name not in service.models())

    return serving


def test_requests_are_in_the_usage_of_their_model(service, token, brief):
    with brief("counted"):
        for _ in range(2):
            service.http.post("/v2/models/counted/predict", json=GOOD).raise_for_status()
        service.http.get("/v2/models/counted").raise_for_status()

        def told():
            used = usage(service, token, "counted")
            return used if used["requests"] else None

        used = service.wait_for("the usage", told, SECONDS)
    assert used["requests"] == 2
    assert used["input_tokens"] > 2
    assert used["output_tokens"] == 0
    assert 0 < used["compute_seconds"] < used["replica_seconds"]


def test_a_replica_that_is_stopped_loses_nothing(service, token, brief):
    with brief("stopped"):
        service.http.post("/v2/models/stopped/predict", json=GOOD).raise_for_status()
    service.wait_for("the usage", lambda: usage(service, token, "stopped")["requests"] == 1, SECONDS)


def test_the_command_shows_it_to_whoever_runs_the_service(service):
    shown = ["usage", "sentiment", "--url", service.url(""), "--output", "json"]

    def told():
        done = subprocess.run(command(*shown), capture_output=True, text=True)
        assert done.stderr == "" or "knows of no use" in done.stderr
        [*rows] = json.loads(done.stdout)["endpoints"]
        return rows[0]["usage"] if rows else None

    used = service.wait_for("the usage", told, SECONDS)
    assert used["replicaSeconds"] > 0
    assert "cost" not in used
