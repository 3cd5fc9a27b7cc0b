"""Requests for a model that has no replica, and gets none: each ends, with the cause, within its limit."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_app.contract import Task
from serve_app.gateway.public_reason import NOT_LOADED
from tests.serve import tiny_models
from tests.serve.bad_requests import assert_error
from tests.serve.service import GOOD, manifest

# A model that does not answer is said so at once: in less than any time limit.
AT_ONCE_SECONDS = 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    tiny_models.write(Task.TEXT_GENERATION, root / "overwritten")
    corrupt = tiny_models.write(Task.TEXT_CLASSIFICATION, root / "corrupt") / "model.safetensors"
    corrupt.write_bytes(corrupt.read_bytes()[:500])
    return root


def refused(service, name, cause, seconds=AT_ONCE_SECONDS):
    """Check that a model says why it does not answer, on each way to it."""
    requests = [
        ("GET", f"/v2/models/{name}/ready", None),
        ("GET", f"/v2/models/{name}", None),
        ("POST", f"/v2/models/{name}/predict", GOOD),
        ("POST", f"/v2/models/{name}/infer", GOOD),
        ("POST", "/predict", {"model": name, **GOOD}),
    ]
    for method, path, body in requests:
        response = service.http.request(method, path, json=body, timeout=seconds)
        assert_error(response, 503)
        assert cause in response.json()["error"], (method, path)


def most_memory(service):
    """Return so much that it fits the machine as it was when Ray started, but not beside the others."""
    found = re.search(r"cores, ([\d.]+)Gi of memory free", service.output())
    return {"memory": f"{int(float(found[1]) * 1024 * 0.95)}Mi"}


def test_a_model_without_a_place_is_said_so_until_it_is_removed(service):
    most = most_memory(service)
    service.write("big.yaml", manifest("big", "file:///models/minilm", "feature-extraction", resources=most))
    service.wait_for("its application", lambda: "big" in service.models())
    refused(service, "big", "big is DEPLOYING")
    service.remove("big.yaml")
    service.wait_for("its removal", lambda: "big" not in service.models())


def test_a_request_that_waits_for_a_place_ends_with_its_limit_or_with_the_model(service):
    asleep = manifest(
        "asleep",
        "file:///models/minilm",
        "feature-extraction",
        resources=most_memory(service),
        scaling={"minReplicas": 0},
        limits={"requestTimeoutSeconds": 4},
    )
    service.write("asleep.yaml", asleep)
    service.wait_ready("asleep")
    started = time.monotonic()
    response = service.http.post("/v2/models/asleep/predict", json=GOOD)
    assert_error(response, 503)
    assert time.monotonic() - started < 4 + AT_ONCE_SECONDS
    assert "had no replica within 4 seconds" in response.json()["error"]

    asleep["spec"]["limits"]["requestTimeoutSeconds"] = 60
    service.write("asleep.yaml", asleep)
    with ThreadPoolExecutor(2) as clients:
        waiting = [
            clients.submit(service.http.post, path, json={**body, **GOOD}, timeout=50)
            for path, body in (("/v2/models/asleep/predict", {}), ("/predict", {"model": "asleep"}))
        ]
        time.sleep(2)
        service.remove("asleep.yaml")
        for answer in waiting:
            assert_error(answer.result(), (404, 503))
    service.wait_for("its removal", lambda: "asleep" not in service.models())


def test_a_scale_from_zero_that_fails_says_why(service, folders):
    service.write(
        "asleep.yaml",
        manifest(
            "asleep",
            f"file://{folders}/corrupt",
            "text-classification",
            scaling={"minReplicas": 0},
            limits={"requestTimeoutSeconds": 50},
        ),
    )
    service.wait_ready("asleep")
    response = service.http.post("/v2/models/asleep/predict", json=GOOD, timeout=60)
    assert_error(response, 503)
    assert NOT_LOADED in response.json()["error"]
    service.remove("asleep.yaml")
    service.wait_for("its removal", lambda: "asleep" not in service.models())


def test_weights_that_are_overwritten_in_place_change_no_answer_until_the_next_start(service, folders):
    folder = folders / "overwritten"
    asked = {"text": "the goal was", "parameters": {"max_new_tokens": 8}}
    service.write(
        "over.yaml",
        manifest("over", f"file://{folder}", "text-generation", model={"dtype": "float32"}),
    )
    service.wait_ready("over")
    before = service.http.post("/v2/models/over/predict", json=asked)
    assert before.status_code == 200
    pids = service.replica_pids("over")

    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(500)
    assert service.http.post("/v2/models/over/predict", json=asked).json() == before.json()
    assert service.replica_pids("over") == pids

    os.kill(pids[0], signal.SIGKILL)
    service.wait_for(
        "the failure of the new replica",
        lambda: service.models()["over"]["reason"] == NOT_LOADED,
    )
    refused(service, "over", NOT_LOADED)
    service.remove("over.yaml")
    service.wait_for("its removal", lambda: "over" not in service.models())
