"""What `kubectl logs` shows of requests: replicas write to the standard output of their container."""

import json

from tests.e2e.release import GOOD, endpoint

REQUEST_ID = "asked-for-the-logs"


def lines_of(release):
    """Return the JSON lines about the request, of all workers."""
    lines = []
    for pod in release.pods(node_type="worker"):
        text = release.kubectl("logs", pod["metadata"]["name"], "--container=ray-worker")
        # A span is printed over several lines.
        found = [line for line in text.splitlines() if REQUEST_ID in line and line.startswith("{")]
        lines += map(json.loads, found)
    return lines


def test_kubectl_logs_has_the_access_log_and_the_payload_log(release):
    release.apply(endpoint("logged", logging={"mode": "sampled", "percent": 100}))
    release.wait_ready("logged")
    answer = release.http.post("/v2/models/logged/predict", json=GOOD, headers={"x-request-id": REQUEST_ID})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, REQUEST_ID)
    release.wait_for("the lines", lambda: len(lines_of(release)) >= 3, seconds=30)
    [access] = [line for line in lines_of(release) if line.get("log") == "access"]
    bodies = {line["type"]: line["data"]["body"] for line in lines_of(release) if "specversion" in line}
    assert (access["model"], access["status"]) == ("logged", 200)
    assert bodies == {
        "org.kubeflow.serving.inference.request": GOOD,
        "org.kubeflow.serving.inference.response": answer.json(),
    }
    release.delete("logged")
    release.wait_for("it is gone", lambda: '"logged"' not in release.serve_config())
