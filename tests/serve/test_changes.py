"""What happens to the running service when files change, models are bad, clients many and replicas killed."""

import os
import signal
import time

import httpx
import psutil
import pytest
import yaml

from serve_app.contract import Task
from serve_app.gateway.public_reason import NOT_LOADED
from tests.load import load_on
from tests.serve import tiny_models
from tests.serve.bad_requests import assert_error
from tests.serve.service import GOOD, manifest


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of tiny models: one that works and two that cannot be loaded."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_models.write(Task.TEXT_CLASSIFICATION, root / "good")
    tiny_models.write(Task.FEATURE_EXTRACTION, root / "other-task")
    corrupt = tiny_models.write(Task.TEXT_CLASSIFICATION, root / "corrupt") / "model.safetensors"
    corrupt.write_bytes(corrupt.read_bytes()[:500])
    return root


def test_an_edited_tunable_is_taken_over_without_a_restart(service):
    file = service.folder / "sentiment.yaml"
    before, pids = file.read_text(), service.replica_pids("sentiment")
    edited = yaml.safe_load(before)
    edited["spec"]["limits"] = {"maxInputTokens": 5}
    with load_on(service.url("/v2/models/sentiment/predict"), {"text": "good"}) as load:
        service.write("sentiment.yaml", edited)
        service.wait_for(
            "the new limit", lambda: _post(service, "one two three four five").status_code == 422
        )
        file.write_text(before)
        service.wait_for("the old limit", lambda: _post(service, "one two three four five").is_success)
    assert load.failures == []
    assert service.replica_pids("sentiment") == pids


def _post(service, text: str) -> httpx.Response:
    return service.http.post("/v2/models/sentiment/predict", json={"text": text})


def test_a_broken_file_is_reported_with_its_line_and_changes_nothing(service):
    file = service.folder / "sentiment.yaml"
    before, pids = file.read_text(), service.replica_pids("sentiment")
    line = len(before.splitlines()) + 1
    with load_on(service.url("/v2/models/sentiment/predict"), GOOD) as load:
        file.write_text(before + "  nonsense: 1\n")
        service.wait_for("the report", lambda: f"sentiment.yaml:{line}: spec.nonsense" in service.output())
        file.write_text(before)
        time.sleep(2)
    assert load.failures == []
    assert service.replica_pids("sentiment") == pids


def test_bad_models_name_their_causes_and_leave_the_others_answering(service, tiny):
    bad = {
        "missing": (f"file://{tiny}/nowhere", "there is no folder"),
        "other-task": (f"file://{tiny}/other-task", "was not trained for text-classification"),
        "corrupt": (f"file://{tiny}/corrupt", "not readable safetensors"),
    }

    def all_failed() -> bool:
        models = service.models()
        return all(models.get(name, {}).get("state") == "DEPLOY_FAILED" for name in bad)

    with (
        load_on(service.url("/v2/models/sentiment/predict"), GOOD) as direct,
        load_on(service.url("/predict"), {"model": "minilm", **GOOD}, clients=1) as through,
    ):
        service.write(
            "bad.yaml", *(manifest(name, uri, "text-classification") for name, (uri, _) in bad.items())
        )
        service.wait_for("the failure of all three", all_failed)
        reasons = {name: model["reason"] for name, model in service.models().items()}
        service.remove("bad.yaml")
        service.wait_for("their removal", lambda: not bad.keys() & service.models().keys())
    for name, (_, cause) in bad.items():
        assert reasons[name] == NOT_LOADED
        assert cause in service.output()
    assert direct.failures == through.failures == []
    assert direct.statuses[200] > 50


def test_a_new_file_is_served_and_a_fixed_one_recovers(service, tiny):
    service.write("new.yaml", manifest("new", f"file://{tiny}/nowhere", "text-classification"))
    service.wait_for("its failure", lambda: service.models().get("new", {}).get("state") == "DEPLOY_FAILED")
    assert_error(service.http.post("/v2/models/new/predict", json=GOOD), 503)
    response = service.http.post("/predict", json={"model": "new", **GOOD})
    assert_error(response, 503)
    assert response.json()["error"] == f"new is DEPLOY_FAILED: {NOT_LOADED}"
    service.write("new.yaml", manifest("new", f"file://{tiny}/good", "text-classification"))
    service.wait_ready("new")
    assert service.http.post("/v2/models/new/predict", json={"text": "good"}).status_code == 200


def test_a_failing_update_leaves_the_last_good_version_answering(service, tiny):
    with load_on(service.url("/v2/models/new/predict"), {"text": "good"}) as load:
        service.write("new.yaml", manifest("new", f"file://{tiny}/corrupt", "text-classification"))
        service.wait_for("the failure", lambda: "new: Degraded" in service.output())
    assert load.failures == []
    service.remove("new.yaml")
    service.wait_for("its removal", lambda: "new" not in service.models())


def test_overload_is_answered_and_passes(service, tiny):
    limits = {"maxOngoingRequests": 16, "maxQueuedRequests": 16}
    service.write("slow.yaml", manifest("slow", "file:///models/minilm", "feature-extraction", limits=limits))
    service.wait_ready("slow")
    body = {"text": "word " * 200}
    assert service.http.post("/v2/models/slow/predict", json=body).status_code == 200
    (pid,) = service.replica_pids("slow")
    for path, request in (("/v2/models/slow/predict", body), ("/predict", {"model": "slow", **body})):
        with load_on(service.url(path), request, clients=100, pause=0) as load:
            time.sleep(4)
        assert load.failures == []
        assert set(load.statuses) == {200, 429}
        assert load.without_retry_after == 0
    after_first = psutil.Process(pid).memory_info().rss
    with load_on(service.url("/v2/models/slow/predict"), body, clients=100, pause=0):
        time.sleep(4)
    assert psutil.Process(pid).memory_info().rss < after_first * 1.1
    assert service.replica_pids("slow") == [pid]
    assert service.http.post("/v2/models/slow/predict", json=body).status_code == 200
    service.remove("slow.yaml")


def test_a_killed_replica_comes_back_and_the_others_notice_nothing(service):
    (pid,) = service.replica_pids("sentiment")
    with (
        load_on(service.url("/v2/models/minilm/predict"), GOOD) as direct,
        load_on(service.url("/predict"), {"model": "minilm", **GOOD}, clients=1) as through,
        load_on(service.url("/v2/models/sentiment/predict"), GOOD) as killed,
    ):
        time.sleep(2)
        os.kill(pid, signal.SIGKILL)
        answered = killed.statuses[200]
        service.wait_for("new answers", lambda: killed.statuses[200] > answered + 20)
    assert direct.failures == through.failures == []
    assert len(killed.failures) <= 4
    assert service.replica_pids("sentiment") != [pid]


def test_replicas_are_forked_and_tell_their_start_and_memory(service):
    (pid,) = service.replica_pids("sentiment")
    parents = [" ".join(parent.cmdline()) for parent in psutil.Process(pid).parents()]
    assert any("serve_app.forkserver.server" in parent for parent in parents)
    facts = service.http.get("/v2/models/sentiment").json()["parameters"]
    parts = ("process", "fetch", "import", "load", "prove", "warm_up", "total")
    assert list(facts["cold_start"]) == [f"{part}_seconds" for part in parts]
    assert facts["cold_start"]["process_seconds"] > 0
    assert 0 < facts["memory"]["proportional_bytes"] < facts["memory"]["resident_bytes"]
