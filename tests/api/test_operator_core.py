"""Faults of other sources: a slow head, other controllers, a second release, absurd input."""

import json
import time

import pytest

from tests.harness.kuberay.serve import fails_to_start, runs

LONG_AGO = "2026-01-01T00:00:00Z"


def test_a_slow_dashboard_and_a_busy_kuberay_hold_no_write_up(scene):
    scene.begin("a")
    scene.dashboard.delay_seconds = 1.5
    # KubeRay writes the status of the RayService several times a second.
    scene.ray.outcomes["busy"] = runs(after=1_000)
    scene.create("busy")
    scene.until(lambda: "busy" in scene.service.entries)
    scene.ray.restless = True
    began = time.monotonic()
    scene.create("b")
    scene.until(lambda: "b" in scene.service.entries)
    assert time.monotonic() - began < 10
    scene.ray.restless = False
    scene.serving("a", "b")


def test_a_condition_of_somebody_else_stays_and_costs_the_operator_nothing(scene):
    scene.begin("a")
    good = scene.status("a")["lastGood"]
    foreign = {
        "type": "example.com/Audited",
        "status": "True",
        "reason": "Fine",
        "message": "",
        "lastTransitionTime": LONG_AGO,
    }
    scene.apply_status("a", "auditor", {"conditions": [foreign]})
    scene.change("a", batching={"maxBatchSize": 2})
    scene.serving("a")
    status = scene.status("a")
    assert status["lastGood"] != good
    assert status["previousGood"]["application"] == good["application"]
    assert scene.condition("a", foreign["type"]) == ("True", "Fine")
    scene.settle()
    before = len(scene.status_writes)
    scene.stays(lambda: len(scene.status_writes) == before, seconds=3)


def test_a_new_endpoint_is_in_progress_for_kstatus_until_the_operator_has_seen_it(scene):
    scene.create("a")
    assert scene.status("a")["observedGeneration"] == -1
    assert "conditions" not in scene.status("a")
    scene.operator.start()
    scene.serving("a")
    assert scene.status("a")["observedGeneration"] == scene.endpoint("a")["metadata"]["generation"]


def test_a_suspended_endpoint_is_current_for_kstatus(scene):
    scene.begin("a")
    scene.change("a", suspend=True)
    scene.until(lambda: scene.condition("a", "Reconciling") == ("False", "Suspended"))
    assert scene.condition("a", "Stalled") == ("False", "Suspended")
    assert scene.condition("a") == ("", "")


def test_two_releases_of_one_namespace_serve_their_own_endpoints_and_nobody_else_s(scene, neighbour):
    scene.create("ours")
    scene.create("theirs", runtime="neighbour")
    scene.operator.start()
    neighbour.start()
    scene.until(lambda: scene.is_ready("ours"))
    scene.until(lambda: scene.status("theirs").get("observedGeneration") == 1)
    scene.settle()
    versions = [scene.endpoint(name)["metadata"]["resourceVersion"] for name in ("ours", "theirs")]
    time.sleep(3)
    assert versions == [scene.endpoint(name)["metadata"]["resourceVersion"] for name in ("ours", "theirs")]
    assert scene.service.entries.keys() == {"gateway", "ours"}
    assert "neighbour-serve-svc" not in json.dumps(scene.status("ours"))
    assert scene.condition("theirs") == ("False", "WaitingForGateway")


def test_the_largest_parameters_of_one_endpoint_concern_nobody_else(scene):
    scene.begin("a")
    labels = ["\N{GRINNING FACE}" * 200] * 100
    model = {"task": "zero-shot-classification", "parameters": {"candidate_labels": labels}}
    scene.create("large", model=model)
    scene.until(lambda: scene.condition("large", "Accepted") == ("False", "InvalidSpec"))
    assert "32768" in scene.status("large")["lastError"].replace(",", "")
    scene.create("b")
    scene.serving("a", "b")
    assert "large" not in scene.service.entries


@pytest.mark.parametrize("name", ["httpx", "kopf"])
def test_the_log_has_no_lines_of_libraries(scene, name):
    scene.begin("a")
    scene.stays(lambda: True, seconds=3)
    assert f"INFO {name}" not in scene.operator.output()


def test_an_emoji_in_a_spec_or_in_an_error_is_a_character_like_others(scene):
    grin = "\N{GRINNING FACE}"
    scene.begin("a")
    labels = {"task": "zero-shot-classification", "parameters": {"candidate_labels": [grin, "\\ud83d"]}}
    scene.create("b", model=labels)
    scene.serving("a", "b")
    assert scene.service.entries["b"]["deployments"][0]["user_config"]["parameters"]["candidate_labels"] == [
        grin,
        "\\ud83d",
    ]
    scene.ray.outcomes["file:///models/broken"] = fails_to_start(f"ValueError: there is no label {grin}")
    scene.change("a", model={"uri": "file:///models/broken"})
    scene.until(lambda: scene.condition("a") == ("False", "RolledBack"))
    assert grin in scene.status("a")["lastError"]
    scene.create("c")
    scene.until(lambda: scene.is_ready("b", "c"))
