"""Clients of the Open Inference Protocol over gRPC and of KServe V1 against the running command."""

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from serve_app.gateway.public_reason import NOT_LOADED
from tests.serve.service import GOOD, SAMPLES

TEXTS = ["I love this product", "I hate this product"]


@pytest.fixture(scope="module")
def client(service):
    with triton.InferenceServerClient(f"127.0.0.1:{service.grpc_port}") as client:
        yield client


def infer(client, model, texts, **options):
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object))
    return client.infer(model, [tensor], **options)


def status_of(client, model="sentiment", texts=("a",), **options):
    with pytest.raises(InferenceServerException) as refused:
        infer(client, model, texts, **options)
    return refused.value.status(), refused.value.message()


def test_the_same_answers_come_over_grpc_and_http(service, client):
    result = infer(client, "sentiment", TEXTS, request_id="7")
    answered = service.http.post("/v2/models/sentiment/predict", json={"texts": TEXTS}).json()["predictions"]
    assert [label.decode() for label in result.as_numpy("label")] == [each["label"] for each in answered]
    assert result.as_numpy("score") == pytest.approx([each["score"] for each in answered], abs=1e-3)
    assert (result.get_response().id, result.get_response().model_version) == ("7", "1")


def test_each_model_is_found_by_its_name(client):
    vectors = infer(client, "minilm", TEXTS).as_numpy("embedding")
    assert (vectors.shape, vectors.dtype) == ((2, 384), np.float32)
    assert infer(client, "random-seq2seq", TEXTS).as_numpy("generated_text").shape == (2,)


def test_parameters_and_optional_outputs(client):
    outputs = [triton.InferRequestedOutput("top")]
    result = infer(client, "sentiment", TEXTS, outputs=outputs, parameters={"top_k": 2})
    assert [text.count(b"label") for text in result.as_numpy("top")] == [2, 2]
    assert "only with the parameter top_k" in status_of(client, outputs=outputs)[1]


@pytest.mark.parametrize(("datatype", "error"), [("FP16", 1e-3), ("BF16", 4e-3)])
def test_vectors_come_in_half_the_bytes_to_unmodified_clients(service, client, datatype, error):
    exact = infer(client, "minilm", TEXTS).as_numpy("embedding")
    tensor = triton_http.InferInput("text", [len(TEXTS)], "BYTES")
    tensor.set_data_from_numpy(np.array(TEXTS, dtype=object))
    parameters = {"output_datatype": datatype}
    over_http = triton_http.InferenceServerClient(f"127.0.0.1:{service.port}")
    for result in (
        infer(client, "minilm", TEXTS, parameters=parameters),
        over_http.infer("minilm", [tensor], parameters=parameters),
    ):
        halves = result.as_numpy("embedding")
        assert (halves.shape, halves.dtype) == ((2, 384), triton_to_np_dtype(datatype))
        assert halves.nbytes == exact.nbytes / 2
        assert halves.astype(np.float32) == pytest.approx(exact, rel=error, abs=1e-6)
    assert "FP32, FP16, BF16" in status_of(client, parameters={"output_datatype": "FP64"})[1]


def test_a_large_message_and_a_compressed_one_are_answered(client):
    # Larger than the proxy's buffer.
    large = infer(client, "minilm", ["good " * 200 + " " * 3000] * 100, parameters={"normalize": True})
    assert large.as_numpy("embedding").shape == (100, 384)
    compressed = infer(client, "sentiment", ["good " * 40] * 20, compression_algorithm="gzip")
    assert set(compressed.as_numpy("label")) == {b"POSITIVE"}


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sentiment")
    assert client.is_model_ready("sentiment", "1")
    assert client.get_server_metadata().name == "model-endpoints"
    described = client.get_model_metadata("sentiment")
    assert list(described.versions) == ["1"]
    assert [output.name for output in described.outputs] == ["label", "score", "top"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"model": "nope"}, "NOT_FOUND"),
        ({"model_version": "2"}, "NOT_FOUND"),
        ({"texts": [""]}, "INVALID_ARGUMENT"),
        ({"texts": ["word " * 5000]}, "INVALID_ARGUMENT"),
        ({"texts": ["a"] * 300}, "INVALID_ARGUMENT"),
        ({"texts": ["x" * 3_000_000]}, "INVALID_ARGUMENT"),
        ({"parameters": {"nope": 1}}, "INVALID_ARGUMENT"),
        ({"client_timeout": 0.0001}, "DEADLINE_EXCEEDED"),
    ],
    ids=str,
)
def test_each_error_has_its_code(client, options, status):
    found, message = status_of(client, **options)
    assert found == f"StatusCode.{status}"
    assert message
    assert infer(client, "sentiment", TEXTS).as_numpy("label")[0] == b"POSITIVE"


def test_a_model_that_does_not_load_is_unavailable_with_its_cause(service, client):
    broken = (SAMPLES / "sentiment.yaml").read_text().replace("name: sentiment", "name: broken")
    (service.folder / "broken.yaml").write_text(broken.replace("/models/sentiment", "/models/none"))
    try:
        service.wait_for("the failure", lambda: service.models().get("broken", {}).get("reason"))
        assert not client.is_model_ready("broken")
        status, message = status_of(client, "broken")
        assert (status, NOT_LOADED in message) == ("StatusCode.UNAVAILABLE", True), message
    finally:
        service.remove("broken.yaml")
        service.wait_for("its end", lambda: "broken" not in service.models())


def test_a_client_of_kserve_v1_is_answered(service):
    document = {"instances": [*TEXTS, {"text": TEXTS[0]}], "parameters": {"top_k": 1}}
    answered = service.http.post("/v1/models/sentiment:predict", json=document).json()["predictions"]
    assert [each["label"] for each in answered] == ["POSITIVE", "NEGATIVE", "POSITIVE"]
    assert service.http.get("/v1/models/sentiment").json()["ready"]
    unknown = service.http.post("/v1/models/nope:predict", json={"instances": [GOOD["text"]]})
    assert (unknown.status_code, "no model is named" in unknown.json()["error"]) == (404, True)


def test_triton_s_client_over_http_lists_the_repository(service):
    client = triton_http.InferenceServerClient(f"127.0.0.1:{service.port}")
    listed = {each["name"]: each["state"] for each in client.get_model_repository_index()}
    assert listed == dict.fromkeys(("minilm", "random-seq2seq", "sentiment"), "READY")
    with pytest.raises(InferenceServerException, match="neither load nor unload"):
        client.load_model("sentiment")
    assert client.is_model_ready("sentiment", "1")
    assert not client.is_model_ready("sentiment", "2")
