"""What the sample models answer: plain JSON, Open Inference Protocol, and errors for bad requests."""

import json
import shlex
import subprocess

import huggingface_hub
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from serve_app.contract import Task
from tests.serve import tiny_models
from tests.serve.bad_requests import BAD_INFER_REQUESTS, BAD_PREDICT_REQUESTS, assert_error
from tests.serve.service import GOOD, command, manifest


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


@pytest.mark.parametrize("name", ["minilm", "minil%6d"], ids=["direct", "through the gateway"])
def test_embed_answers_the_vectors_of_predict_normalized(service, name):
    # HAProxy does not decode paths, so it passes the second name to the gateway, which asks the model.
    assert service.http.get(f"/v2/models/{name}").json()["name"] == "minilm"
    texts = ["A cat sits on the mat", "Interest rates rose again"]
    predictions = service.http.post("/v2/models/minilm/predict", json={"texts": texts}).json()["predictions"]
    embed = f"/v2/models/{name}/embed"
    got = service.http.post(embed, json={"inputs": texts}).json()
    assert np.allclose(got, [item["embedding"] for item in predictions], atol=1e-3)
    plain = service.http.post(embed, json={"inputs": texts[0], "normalize": False, "truncate": True}).json()
    assert np.linalg.norm(plain[0]) > 1.1
    assert np.allclose(plain[0] / np.linalg.norm(plain[0]), got[0], atol=1e-3)


def test_an_answer_of_megabytes_comes_through_the_gateway(service, tmp_path):
    """Ray's own limit of what it passes on is 4 MiB."""
    folder = tiny_models.write(Task.FILL_MASK, tmp_path / "fills")
    service.write("fills.yaml", manifest("fills", f"file://{folder}", "fill-mask"))
    service.wait_ready("fills")
    body = {"texts": ["[MASK] " + "good " * 50] * 256, "parameters": {"top_k": 70}}
    response = service.http.post("/v2/models/fill%73/predict", json=body, timeout=60)
    assert response.status_code == 200
    assert len(response.content) > 4 * 2**20
    service.remove("fills.yaml")
    service.wait_for("its removal", lambda: "fills" not in service.models())


def test_a_client_of_text_embeddings_inference_works_unchanged(service, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    client = huggingface_hub.InferenceClient(service.url("/v2/models/minilm/embed"))
    vectors = client.feature_extraction(["A cat sits on the mat", "word " * 400], truncate=True)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["sentiment", "sentimen%74"], ids=["direct", "through the gateway"])
def test_an_endpoint_of_another_task_does_not_embed(service, name):
    response = service.http.post(f"/v2/models/{name}/embed", json={"inputs": "a"})
    assert_error(response, 422)
    assert "an endpoint of text-classification" in response.json()["error"]


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
        ("/v2/models/nope/embed", {"inputs": "a"}),
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


@pytest.mark.parametrize("case", BAD_PREDICT_REQUESTS, ids=lambda case: case[0])
def test_a_bad_predict_request_gets_an_error_and_the_next_good_one_an_answer(service, case):
    _, body, headers, status = case
    assert_error(service.http.post("/v2/models/sentiment/predict", content=body, headers=headers), status)
    assert service.http.post("/v2/models/sentiment/predict", json=GOOD).status_code == 200


@pytest.mark.parametrize("case", BAD_PREDICT_REQUESTS, ids=lambda case: case[0])
def test_a_bad_request_to_the_gateway_gets_an_error_too(service, case):
    _, body, headers, status = case
    if body.startswith(b'{"') and b"[[[" not in body:
        body = b'{"model": "sentiment", ' + body[1:]
    assert_error(service.http.post("/predict", content=body, headers=headers), status)
    assert service.http.post("/predict", json={"model": "sentiment", **GOOD}).status_code == 200


@pytest.mark.parametrize("case", BAD_INFER_REQUESTS, ids=lambda case: case[0])
def test_a_bad_infer_request_gets_an_error(service, case):
    _, body, headers, status = case
    assert_error(service.http.post("/v2/models/sentiment/infer", content=body, headers=headers), status)


def test_wrong_paths_and_methods_get_errors(service):
    assert_error(service.http.get("/v2/models/sentiment/predict"), 405)
    assert_error(service.http.get("/predict"), 405)
    assert_error(service.http.get("/v2/models/sentiment/nope"), 404)
    assert_error(service.http.get("/nope"), 404)
    assert_error(service.http.post("/predict", json=GOOD), 422)


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
