"""Clients as they are on PyPI get the right answers, and the paths that HAProxy promises have no hop."""

import json
import os
import subprocess
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from rich.console import Console
from sentence_transformers import CrossEncoder, SentenceTransformer

from bench.environments import python_of
from serve_app.contract import Task
from tests.clients.ask import DOCUMENTS, QUERY, TEXTS
from tests.serve import tiny_models
from tests.serve.service import MODELS, manifest

CLIENTS = Path(__file__).parents[1] / "clients"
TINY = {
    "ranker": Task.TEXT_RANKING,
    "entities": Task.TOKEN_CLASSIFICATION,
    "zero-shot": Task.ZERO_SHOT_CLASSIFICATION,
    "masks": Task.FILL_MASK,
    "causal": Task.TEXT_GENERATION,
    "summaries": Task.SUMMARIZATION,
    "translations": Task.TRANSLATION,
    "answers": Task.QUESTION_ANSWERING,
}
TEXT = "ada was in london ."


@pytest.fixture(scope="module")
def tiny(service, tmp_path_factory):
    """The service with a tiny model of each further task; the folders of the models."""
    root = tmp_path_factory.mktemp("tiny")
    folders = {name: tiny_models.write(task, root / name) for name, task in TINY.items()}
    service.write(
        "tiny.yaml", *(manifest(name, f"file://{folders[name]}", str(task)) for name, task in TINY.items())
    )
    for name in TINY:
        service.wait_ready(name)
    yield folders
    service.remove("tiny.yaml")


# Nothing may be asked of the internet: litellm has its own table of prices then.
CLIENT_VARIABLES = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "*",
    "no_proxy": "*",
    "OTEL_SDK_DISABLED": "true",
}


def asked(requirements, script, *arguments):
    """Return what the script prints last, in an environment with these requirements."""
    python = python_of(CLIENTS / requirements, Console(stderr=True))
    command = [str(python), str(CLIENTS / script), *arguments]
    variables = os.environ | CLIENT_VARIABLES
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def answers(service, tiny):
    return asked("clients.txt", "ask.py", service.url(""))


@pytest.fixture(scope="module")
def vectors():
    model = SentenceTransformer(str(MODELS / "minilm"), device="cpu")
    return model.encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(scope="module")
def ranks(tiny):
    ranked = CrossEncoder(str(tiny["ranker"]), device="cpu").rank(QUERY, DOCUMENTS)
    return [[each["corpus_id"], pytest.approx(each["score"], abs=1e-3)] for each in ranked]


def require_vectors(got, expected):
    got = np.asarray(got)
    assert got.shape == expected.shape
    assert (np.sum(got * expected, axis=1) >= 0.9999).all()


def test_the_client_of_openai(answers, vectors):
    got = answers["openai"]
    require_vectors(got["vectors"], vectors)
    short = vectors[:1, :8] / np.linalg.norm(vectors[:1, :8])
    require_vectors([got["short"]], short)
    assert got["tokens"] > 8
    assert {"minilm", "ranker", "sentiment"} <= set(got["models"])
    assert got["model"] == "minilm"
    (unknown, status, code, _), (empty, refused, _, sentence) = got["errors"]
    assert (unknown, status, code) == ("NotFoundError", 404, "unknown_model")
    assert (empty, refused, sentence) == ("UnprocessableEntityError", 422, "the text is empty")


def test_the_clients_of_langchain_litellm_and_llama_index_embed(answers, vectors):
    require_vectors(answers["langchain"], vectors)
    require_vectors(answers["litellm"]["vectors"], vectors)
    require_vectors(answers["llama-index"]["vectors"], vectors)


def test_the_clients_of_litellm_llama_index_and_cohere_rank(answers, ranks):
    assert answers["litellm"]["huggingface"] == ranks
    assert answers["litellm"]["hosted_vllm"] == ranks
    assert answers["llama-index"]["ranks"] == ranks
    assert answers["cohere"] == {"v1": ranks[:2], "v2": ranks[:2]}


def test_the_client_of_kserve(service):
    labels = ["POSITIVE", "NEGATIVE"]
    assert asked("kserve.txt", "ask_kserve.py", service.url(""), str(service.grpc_port)) == {
        "v1": labels,
        "v1 ready": True,
        "v2": labels,
        "v2 ready": [True, True, True],
        "grpc": labels,
        "grpc ready": [True, True, True],
        "grpc unknown": "NOT_FOUND",
    }


@pytest.fixture
def hub(service, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def client(name):
        return huggingface_hub.InferenceClient(model=f"http://127.0.0.1:{service.port}/v2/models/{name}")

    return client


def predicted(service, name, **body):
    return service.http.post(f"/v2/models/{name}/predict", json=body).json()


def test_the_client_of_hugging_face_for_each_task(service, tiny, hub, vectors):
    [positive, negative] = hub("sentiment").text_classification("I love this product")
    assert (positive.label, negative.label) == ("POSITIVE", "NEGATIVE")
    require_vectors(hub("minilm").feature_extraction(TEXTS[0], normalize=True), vectors[:1])
    [similar] = hub("minilm").sentence_similarity(TEXTS[0], [TEXTS[1]])
    assert similar == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-3)
    entities = hub("entities").token_classification(TEXT)
    expected = predicted(service, "entities", text=TEXT)["entities"]
    assert [(each.word, each.start, each.end) for each in entities] == [
        (each["word"], each["start"], each["end"]) for each in expected
    ]
    labels = hub("zero-shot").zero_shot_classification(TEXT, candidate_labels=["sports", "politics"])
    candidates = {"candidate_labels": ["sports", "politics"]}
    expected = predicted(service, "zero-shot", text=TEXT, parameters=candidates)
    assert [each.label for each in labels] == expected["labels"]
    assert [each.score for each in labels] == pytest.approx(expected["scores"], abs=1e-5)
    fills = hub("masks").fill_mask("ada was in [MASK] .", top_k=3)
    tokenizer = tiny_models.tokenizer()
    assert len(fills) == 3
    assert all(tokenizer.convert_tokens_to_ids(each.token_str) == each.token for each in fills)
    text = hub("causal").text_generation(TEXT, max_new_tokens=4)
    assert text == predicted(service, "causal", text=TEXT, parameters={"max_new_tokens": 4})["generated_text"]
    summary = hub("summaries").summarization(TEXT).summary_text
    assert summary == predicted(service, "summaries", text=TEXT)["summary_text"]
    translation = hub("translations").translation(TEXT, src_lang="en", tgt_lang="de").translation_text
    assert translation == predicted(service, "translations", text=TEXT)["translation_text"]


def test_the_client_of_hugging_face_for_questions(service, tiny, hub):
    expected = predicted(service, "answers", question=QUERY, context=TEXT, parameters={"top_k": 2})["answers"]
    one = hub("answers").question_answering(QUERY, TEXT)
    best = expected[0]
    assert (one.answer, one.start, one.end) == (best["answer"], best["start"], best["end"])
    several = hub("answers").question_answering(QUERY, TEXT, top_k=2)
    assert [(each.answer, each.start, each.end) for each in several] == [
        (each["answer"], each["start"], each["end"]) for each in expected
    ]


# A request for each path where the body names the model; test_chat_clients.py has those of chats.
ENTERED = {
    "/predict": {"model": "sentiment", "text": "I love this product"},
    "/rerank": {"model": "ranker", "query": QUERY, "texts": DOCUMENTS},
    "/v1/rerank": {"model": "ranker", "query": QUERY, "documents": DOCUMENTS},
    "/v2/rerank": {"model": "ranker", "query": QUERY, "documents": DOCUMENTS},
    "/v1/embeddings": {"model": "minilm", "input": TEXTS},
}


def through_gateway(document):
    """Return the body with an escape in the model's name, which HAProxy does not read."""
    name = document["model"]
    return json.dumps(document).replace(f'"{name}"', f'"\\u{ord(name[0]):04x}{name[1:]}"')


def test_each_path_with_the_model_in_the_body_is_answered_by_the_replica_itself(service, tiny):
    """The gateway answers the same for bodies that HAProxy does not read, here with a name in escapes."""
    for path, document in ENTERED.items():
        direct = service.http.post(path, json=document)
        assert direct.status_code == 200, direct.text
        content = through_gateway(document)
        through = service.http.post(path, content=content, headers={"content-type": "application/json"})
        assert through.json() == direct.json()
