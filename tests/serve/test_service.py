"""The sample models on real Ray, as `make run` serves them: protocols, errors, changes, faults.

The tests share one service and run in the order of this file, gentle ones first.
"""

import json
import os
import shlex
import signal
import subprocess
import time

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.http as triton
import yaml
from tritonclient.utils import InferenceServerException

from serve_app.contract import Task
from tests.serve import tiny_models
from tests.serve.bad_requests import BAD_INFER_REQUESTS, BAD_PREDICT_REQUESTS
from tests.serve.load import load_on
from tests.serve.service import MODELS, SAMPLES, command, manifest, running

GOOD = {"text": "I love this product"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    for name in ("sentiment", "minilm", "random-seq2seq"):
        (folder / f"{name}.yaml").write_text((SAMPLES / f"{name}.yaml").read_text())
    with running(folder, "--models", str(MODELS)) as service:
        yield service


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of tiny models: one that works and two that cannot be loaded."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_models.write(Task.TEXT_CLASSIFICATION, root / "good")
    tiny_models.write(Task.FEATURE_EXTRACTION, root / "other-task")
    corrupt = tiny_models.write(Task.TEXT_CLASSIFICATION, root / "corrupt") / "model.safetensors"
    corrupt.write_bytes(corrupt.read_bytes()[:500])
    return root


def url(service, path: str) -> str:
    return f"http://127.0.0.1:{service.port}{path}"


def test_the_table_and_the_example_work_as_printed(service):
    output = service.output()
    assert f"http://localhost:{service.port}/v2/models/sentiment" in output
    curl = next(line for line in output.splitlines() if "curl " in line)
    answer = json.loads(subprocess.run(shlex.split(curl), capture_output=True, check=True).stdout)
    assert answer["label"] == "POSITIVE"


def test_the_gateway_and_the_model_give_the_same_answer(service):
    through = service.http.post("/predict", json={"model": "sentiment", **GOOD})
    direct = service.http.post("/v2/models/sentiment/predict", json=GOOD)
    assert through.json() == direct.json()
    assert direct.json()["label"] == "POSITIVE"
    assert 0.5 < direct.json()["score"] <= 1


def test_several_texts_are_answered_in_order(service):
    texts = ["I hate waiting", "What a wonderful day", "The food was terrible"]
    answer = service.http.post("/v2/models/sentiment/predict", json={"texts": texts}).json()
    assert [item["label"] for item in answer["predictions"]] == ["NEGATIVE", "POSITIVE", "NEGATIVE"]


def test_embeddings_put_like_with_like(service):
    texts = ["A cat sits on the mat", "A kitten lies on the rug", "Interest rates rose again"]
    answer = service.http.post("/v2/models/minilm/predict", json={"texts": texts}).json()
    cat, kitten, rates = (np.array(item["embedding"]) for item in answer["predictions"])
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-3)
    assert cat @ kitten > cat @ rates + 0.3


def test_generation_takes_the_endpoints_parameters_and_the_requests(service):
    path = "/v2/models/random-seq2seq/predict"
    short = {**GOOD, "parameters": {"max_new_tokens": 1}}
    longer = service.http.post(path, json=GOOD).json()["generated_text"]
    assert len(service.http.post(path, json=short).json()["generated_text"]) < len(longer)


def test_the_endpoint_that_says_so_truncates(service):
    text = "word " * 400
    assert service.http.post("/v2/models/minilm/predict", json={"text": text}).status_code == 200
    assert service.http.post("/v2/models/sentiment/predict", json={"text": "word " * 600}).status_code == 422


def test_server_health_and_the_list_of_models(service):
    for path in ("/health", "/ready", "/v2/health/live", "/v2/health/ready"):
        assert service.http.get(path).status_code == 200
    assert set(service.models()) == {"sentiment", "minilm", "random-seq2seq"}
    assert all(model["ready"] for model in service.models().values())


def test_an_unknown_model_is_told_the_known_ones(service):
    for path, body in (
        ("/predict", {"model": "nope", **GOOD}),
        ("/v2/models/nope/predict", GOOD),
        ("/v2/models/nope/infer", {"inputs": []}),
    ):
        response = service.http.post(path, json=body)
        assert response.status_code == 404
        assert response.json()["models"] == ["minilm", "random-seq2seq", "sentiment"]


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
def test_an_open_inference_client_works_unchanged(service, binary_input, binary_output):
    client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")
    tensor = triton.InferInput("text", [2], "BYTES")
    texts = np.array(["I love this product", "I hate this product"], dtype=object)
    tensor.set_data_from_numpy(texts, binary_data=binary_input)
    outputs = None
    if binary_output is not None:
        outputs = [
            triton.InferRequestedOutput(name, binary_data=binary_output) for name in ("label", "score")
        ]
    result = client.infer("sentiment", [tensor], outputs=outputs, request_id="7")
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]
    assert labels == ["POSITIVE", "NEGATIVE"]
    assert result.as_numpy("score").dtype == np.float32
    assert result.get_response()["id"] == "7"


def test_an_open_inference_client_sees_health_metadata_and_errors(service):
    client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sentiment")
    assert not client.is_model_ready("nope")
    assert client.get_model_metadata("minilm")["parameters"]["max_input_tokens"] == 256
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array(["a"], dtype=object))
    with pytest.raises(InferenceServerException, match="no model is named"):
        client.infer("nope", [tensor])


def _assert_error(response: httpx.Response, status) -> None:
    statuses = status if isinstance(status, tuple) else (status,)
    assert response.status_code in statuses, response.text
    body = response.json()
    assert isinstance(body["error"], str)
    assert isinstance(body["code"], str)
    assert "Traceback" not in response.text


@pytest.mark.parametrize("case", BAD_PREDICT_REQUESTS, ids=lambda case: case[0])
def test_a_bad_predict_request_gets_an_error_and_the_next_good_one_an_answer(service, case):
    _, body, headers, status = case
    _assert_error(service.http.post("/v2/models/sentiment/predict", content=body, headers=headers), status)
    assert service.http.post("/v2/models/sentiment/predict", json=GOOD).status_code == 200


@pytest.mark.parametrize("case", BAD_PREDICT_REQUESTS, ids=lambda case: case[0])
def test_a_bad_request_to_the_gateway_gets_an_error_too(service, case):
    _, body, headers, status = case
    if body.startswith(b'{"') and b"[[[" not in body:
        body = b'{"model": "sentiment", ' + body[1:]
    _assert_error(service.http.post("/predict", content=body, headers=headers), status)
    assert service.http.post("/predict", json={"model": "sentiment", **GOOD}).status_code == 200


@pytest.mark.parametrize("case", BAD_INFER_REQUESTS, ids=lambda case: case[0])
def test_a_bad_infer_request_gets_an_error(service, case):
    _, body, headers, status = case
    _assert_error(service.http.post("/v2/models/sentiment/infer", content=body, headers=headers), status)


def test_wrong_paths_and_methods_get_errors(service):
    _assert_error(service.http.get("/v2/models/sentiment/predict"), 405)
    _assert_error(service.http.get("/predict"), 405)
    _assert_error(service.http.get("/v2/models/sentiment/nope"), 404)
    _assert_error(service.http.get("/nope"), 404)
    _assert_error(service.http.post("/predict", json=GOOD), 422)


def test_an_edited_tunable_is_taken_over_without_a_restart(service):
    file = service.folder / "sentiment.yaml"
    before, pids = file.read_text(), service.replica_pids("sentiment")
    edited = yaml.safe_load(before)
    edited["spec"]["limits"] = {"maxInputTokens": 5}
    with load_on(url(service, "/v2/models/sentiment/predict"), {"text": "good"}) as load:
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
    with load_on(url(service, "/v2/models/sentiment/predict"), GOOD) as load:
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
        load_on(url(service, "/v2/models/sentiment/predict"), GOOD) as direct,
        load_on(url(service, "/predict"), {"model": "minilm", **GOOD}, clients=1) as through,
    ):
        service.write(
            "bad.yaml", *(manifest(name, uri, "text-classification") for name, (uri, _) in bad.items())
        )
        service.wait_for("the failure of all three", all_failed)
        reasons = {name: model["reason"] for name, model in service.models().items()}
        service.remove("bad.yaml")
        service.wait_for("their removal", lambda: not bad.keys() & service.models().keys())
    for name, (_, cause) in bad.items():
        assert cause in reasons[name]
        assert cause in service.output()
    assert direct.failures == through.failures == []
    assert direct.statuses[200] > 50


def test_a_new_file_is_served_and_a_fixed_one_recovers(service, tiny):
    service.write("new.yaml", manifest("new", f"file://{tiny}/nowhere", "text-classification"))
    service.wait_for("its failure", lambda: service.models().get("new", {}).get("state") == "DEPLOY_FAILED")
    _assert_error(service.http.post("/predict", json={"model": "new", **GOOD}), 503)
    service.write("new.yaml", manifest("new", f"file://{tiny}/good", "text-classification"))
    service.wait_ready("new")
    assert service.http.post("/v2/models/new/predict", json={"text": "good"}).status_code == 200


def test_a_failing_update_leaves_the_last_good_version_answering(service, tiny):
    with load_on(url(service, "/v2/models/new/predict"), {"text": "good"}) as load:
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
        with load_on(url(service, path), request, clients=200) as load:
            time.sleep(6)
        assert load.failures == []
        assert set(load.statuses) == {200, 429}
        assert load.without_retry_after == 0
    after_first = psutil.Process(pid).memory_info().rss
    with load_on(url(service, "/v2/models/slow/predict"), body, clients=200):
        time.sleep(6)
    assert psutil.Process(pid).memory_info().rss < after_first * 1.1
    assert service.replica_pids("slow") == [pid]
    assert service.http.post("/v2/models/slow/predict", json=body).status_code == 200
    service.remove("slow.yaml")


def test_a_killed_replica_comes_back_and_the_others_notice_nothing(service):
    (pid,) = service.replica_pids("sentiment")
    with (
        load_on(url(service, "/v2/models/minilm/predict"), GOOD) as direct,
        load_on(url(service, "/predict"), {"model": "minilm", **GOOD}, clients=1) as through,
        load_on(url(service, "/v2/models/sentiment/predict"), GOOD) as killed,
    ):
        time.sleep(2)
        os.kill(pid, signal.SIGKILL)
        answered = killed.statuses[200]
        service.wait_for("new answers", lambda: killed.statuses[200] > answered + 20)
    assert direct.failures == through.failures == []
    assert len(killed.failures) <= 4
    assert service.replica_pids("sentiment") != [pid]


def test_the_predict_command_asks_a_running_service(service):
    address = f"http://127.0.0.1:{service.port}"
    done = subprocess.run(
        command("predict", "sentiment", "Great!", "Awful.", "--url", address), capture_output=True, text=True
    )
    assert done.returncode == 0
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["POSITIVE", "NEGATIVE"]
    unknown = subprocess.run(
        command("predict", "nope", "a", "--url", address), capture_output=True, text=True
    )
    assert unknown.returncode == 1
    assert "known models" in unknown.stderr


def test_ctrl_c_finishes_requests_and_leaves_nothing_behind(service):
    ours = psutil.Process(service.process.pid).children(recursive=True)
    slow = {"texts": ["word " * 250] * 100}
    with load_on(url(service, "/v2/models/minilm/predict"), slow, clients=1) as load:
        time.sleep(1)
        os.killpg(service.process.pid, signal.SIGINT)
        service.wait_for("the answer to the running request", lambda: load.statuses[200])
    assert service.process.wait(90) == 0
    assert service.output().rstrip().endswith("Stopped.")
    _, alive = psutil.wait_procs(ours, timeout=10)
    assert alive == []
