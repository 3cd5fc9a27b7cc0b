"""The README's walk-through and what happens to models in their lives, each while others are asked."""

import json
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml

from tests.e2e.release import SAMPLES, endpoint

QUESTIONS = {
    "chat": {"text": "What is the capital of France?", "parameters": {"max_new_tokens": 8}},
    "minilm": {"text": "a sentence"},
    "random-seq2seq": {"text": "a sentence"},
    "sentiment": {"text": "I love this product"},
    "topic": {"text": "the striker scored twice in the final"},
}


def samples():
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted(SAMPLES.glob("*.yaml"))}


def test_every_sample_becomes_ready_and_answers_while_one_model_cannot_load(release, record_property):
    """The broken one was there first; see the fixture."""
    assert samples().keys() == QUESTIONS.keys()
    for name, manifest in samples().items():
        started = time.monotonic()
        release.apply(manifest)
        release.wait_for(f"{name} answers", lambda name=name: release.answers(name, QUESTIONS[name]))
        seconds = time.monotonic() - started
        record_property(f"{name}, from apply to the first answer", f"{seconds:.1f} s")
    release.wait_ready(*QUESTIONS)
    response = release.http.post("/predict", json={"model": "sentiment", "text": "I love this product"})
    assert response.json()["label"] == "POSITIVE"


def test_clients_of_other_protocols_are_answered(release):
    """One call each, with what `tests/serve/test_clients.py` asks on one machine."""
    model = {"uri": "file:///models/random-ranker", "task": "text-ranking"}
    release.apply(endpoint("ranker", model=model))
    release.wait_ready("ranker")
    texts = ["one text", "another"]
    for path, document in (
        ("/v1/embeddings", {"model": "minilm", "input": texts, "encoding_format": "base64"}),
        ("/rerank", {"model": "ranker", "query": "a text?", "texts": texts}),
        ("/v1/rerank", {"model": "ranker", "query": "a text?", "documents": texts}),
        ("/v2/models/minilm/embed", {"inputs": texts}),
        ("/v2/models/sentiment", {"inputs": texts}),
        ("/v2/models/sentiment/predict", {"inputs": texts[0]}),
    ):
        response = release.http.post(path, json=document)
        assert response.status_code == 200, response.text
        answers = response.json()
        assert len(answers.get("data") or answers["results"] if isinstance(answers, dict) else answers) == 2
    models = release.http.get("/v1/models").json()["data"]
    assert {"minilm", "ranker", "sentiment"} <= {model["id"] for model in models}
    release.delete("ranker")


def test_a_client_of_grpc_is_answered(release):
    with release.forwarded(9000) as port, triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_model_ready("sentiment")
        tensor = triton.InferInput("text", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"I love this product"], dtype=object))
        assert client.infer("sentiment", [tensor]).as_numpy("label").tolist() == [b"POSITIVE"]


def test_a_chat_is_streamed_through_the_cluster_piece_by_piece(release):
    question = {"role": "user", "content": "What is the capital of France?"}
    request = {"model": "chat", "messages": [question], "stream": True, "max_tokens": 40}
    arrived = []
    with release.http.stream("POST", "/v1/chat/completions", json=request) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                [choice] = json.loads(line.removeprefix("data: "))["choices"]
                arrived.append((time.monotonic(), choice["delta"].get("content", "")))
    assert "".join(text for _, text in arrived) == "The capital of France is Paris."
    assert len({round(at, 3) for at, _ in arrived}) > 3


def test_the_model_that_cannot_load_says_why_and_becomes_ready_when_it_is_mended(release):
    release.wait_for(
        "broken is given up", lambda: release.conditions("broken")["Stalled"]["status"] == "True"
    )
    table = release.kubectl("get", "modelendpoint", "broken")
    assert "False" in table
    assert (
        "there is no folder /models/nowhere" in release.get("modelendpoint", "broken")["status"]["lastError"]
    )
    release.apply(endpoint("broken"))
    release.wait_ready("broken")
    assert release.answers("broken")["label"] == "POSITIVE"
    release.delete("broken")


def test_a_change_of_the_model_under_load_fails_no_request(release, steady):
    release.apply(endpoint("changing"))
    release.wait_ready("changing")
    before = release.replicas("changing")
    with release.load("changing") as load, release.load(steady) as other:
        release.apply(endpoint("changing", uri="file:///models/topic"))
        release.wait_for("new replicas", lambda: not set(before) & set(release.replicas("changing")))
        release.wait_ready("changing")
    assert load.failures == []
    assert other.failures == []
    assert load.statuses[200] > 20


def test_a_change_of_a_tunable_keeps_the_replicas(release):
    before = release.replicas("changing")
    release.apply(endpoint("changing", uri="file:///models/topic", limits={"maxInputTokens": 4}))

    def refused():
        return release.http.post("/v2/models/changing/predict", json={"text": "one two three four five six"})

    release.wait_for("the new limit", lambda: refused().status_code == 422, seconds=60)
    assert release.replicas("changing") == before


def test_deleting_an_endpoint_fails_no_request_of_another(release, steady):
    with release.load(steady) as load:
        release.delete("changing")
        release.wait_for("it is gone", lambda: "changing" not in release.applications(), seconds=60)
    assert load.failures == []

    def asked():
        return release.http.post("/predict", json={"model": "changing", "text": "?"})

    # A node's proxy may send requests to the replica that was for a moment more.
    release.wait_for("it is unknown", lambda: asked().status_code == 404, seconds=30)
    assert asked().json()["code"] == "unknown_model"


@pytest.fixture
def elastic(release):
    release.apply(
        endpoint(
            "elastic",
            scaling={
                "minReplicas": 1,
                "maxReplicas": 3,
                "targetOngoingRequests": 1,
                "upscaleDelaySeconds": 1,
                "downscaleDelaySeconds": 5,
            },
        )
    )
    release.wait_ready("elastic")
    yield "elastic"
    release.delete("elastic")


def test_load_scales_an_endpoint_up_and_down_and_no_other(release, steady, elastic):
    others = release.replicas(steady)
    with release.load(elastic, clients=12, pause=0) as load:
        release.wait_for("3 replicas", lambda: len(release.replicas(elastic)) == 3)
        release.wait_for(
            "the status says so",
            lambda: release.get("modelendpoint", elastic)["status"].get("readyReplicas") == 3,
        )
        assert release.replicas(steady) == others
    assert load.failures == []
    release.wait_for("1 replica", lambda: len(release.replicas(elastic)) == 1)
    assert release.replicas(steady) == others
