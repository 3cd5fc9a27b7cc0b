"""OpenAI's embeddings, rerank in its shapes, Hugging Face and Text Embeddings Inference, on fakes."""

import base64
import json

import numpy as np
import pytest
from starlette.testclient import TestClient

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.batch_engine import BatchEngine
from serve_app.protocols import model_application
from tests.unit import fake_model

EMBEDDINGS, RERANK = "/v1/embeddings", "/rerank"
QUERY, TEXTS = "q", ["one", "one two three", "one two", "a b"]


@pytest.fixture(scope="module")
def embedder():
    with TestClient(model_application(fake_model.embedding_service().engine)) as client:
        yield client


@pytest.fixture(scope="module")
def ranker():
    with TestClient(model_application(fake_model.ranking_service().engine)) as client:
        yield client


@pytest.fixture(scope="module")
def classifier():
    with TestClient(model_application(fake_model.service().engine)) as client:
        yield client


def answer(client, path, document, status=200):
    response = client.post(path, json=document)
    assert response.status_code == status, response.text
    return response.json()


def test_embeddings_have_openai_s_shape_and_count_tokens(embedder):
    assert answer(embedder, EMBEDDINGS, {"model": "minilm", "input": ["one", "two words"], "user": "u"}) == {
        "object": "list",
        "model": "minilm",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1, 1]},
            {"object": "embedding", "index": 1, "embedding": [2, 1]},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


def test_one_text_is_a_list_of_one(embedder):
    assert len(answer(embedder, EMBEDDINGS, {"model": "minilm", "input": "one"})["data"]) == 1


def test_base64_has_little_endian_float32(embedder):
    document = {"model": "minilm", "input": "a b c", "encoding_format": "base64"}
    text = answer(embedder, EMBEDDINGS, document)["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(text), dtype="<f4").tolist() == [3, 1]


def test_fewer_dimensions_have_length_1_again(embedder):
    document = {"model": "minilm", "input": "a b c", "dimensions": 1}
    assert answer(embedder, EMBEDDINGS, document)["data"][0]["embedding"] == [1]
    error = answer(embedder, EMBEDDINGS, document | {"dimensions": 3}, 422)["error"]
    assert error["message"] == "dimensions: got 3; the model has 2"


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]]])
def test_token_ids_are_refused_with_the_way_out(embedder, ids):
    error = answer(embedder, EMBEDDINGS, {"model": "minilm", "input": ids}, 422)["error"]
    assert "check_embedding_ctx_length=False" in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_input")


def test_texts_embeddings_inference_s_rerank_is_a_list_best_first(ranker):
    document = {"query": QUERY, "texts": TEXTS}
    assert answer(ranker, RERANK, document) == [
        {"index": 1, "score": 3},
        {"index": 2, "score": 2},
        {"index": 3, "score": 2},
        {"index": 0, "score": 1},
    ]
    raw = answer(ranker, RERANK, document | {"raw_scores": True, "return_text": True})
    assert raw[0] == {"index": 0, "score": -1, "text": "one"}
    assert answer(ranker, RERANK, {"query": QUERY, "texts": ["w " * 20]}, 422)["error_type"] == "validation"
    assert answer(ranker, RERANK, {"query": QUERY, "texts": ["w " * 20], "truncate": True})


@pytest.mark.parametrize("path", [RERANK, "/v1/rerank", "/v2/rerank"])
def test_jina_s_and_cohere_s_rerank_have_results(ranker, path):
    documents = [*TEXTS[:3], {"text": TEXTS[3]}]
    document = {"model": "ranker", "query": QUERY, "documents": documents}
    got = answer(ranker, path, document)
    assert [(each["index"], each["relevance_score"]) for each in got["results"]] == [
        (1, 3),
        (2, 2),
        (3, 2),
        (0, 1),
    ]
    assert got["usage"] == {"total_tokens": 12, "prompt_tokens": 12}
    got = answer(ranker, path, document | {"top_n": 2, "return_documents": True})
    assert got["results"] == [
        {"index": 1, "relevance_score": 3, "document": {"text": "one two three"}},
        {"index": 2, "relevance_score": 2, "document": {"text": "one two"}},
    ]


def test_predict_takes_one_query_with_many_texts(ranker):
    got = answer(ranker, "/predict", {"query": QUERY, "texts": TEXTS})
    assert [each["score"] for each in got["predictions"]] == [1, 3, 2, 2]
    assert answer(ranker, "/predict", {"query": QUERY, "text": "a b"}) == {"model": "ranker", "score": 2}
    pairs = {"texts": [{"query": QUERY, "text": "a"}, {"text": "a b", "query": "p"}]}
    assert [each["score"] for each in answer(ranker, "/predict", pairs)["predictions"]] == [1, 2]


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"text": "a"}, "the request: query is missing; text-ranking takes query and text"),
        ({"texts": ["a"]}, "text-ranking takes query and text for each input, and got 1 text(s)"),
        ({"query": "a"}, "the request: text is missing; text-ranking takes query and text"),
        ({"question": "a", "text": "b"}, "the request: got 'question'; text-ranking takes query and text"),
        ({"text": "a", "texts": ["b"]}, 'give either "query" or "texts"'),
        (
            {"query": "a", "texts": [{"text": "b"}]},
            "texts[0]: got {'text': 'b'}; beside query, it must be a text",
        ),
        ({"texts": [{"query": "a", "text": 1}]}, "texts[0].text: got 1; must be a text"),
        ({"query": " ", "text": "b"}, "the text: query is empty"),
    ],
)
def test_what_is_wrong_with_a_pair_is_said(ranker, document, sentence):
    assert answer(ranker, "/predict", document, 422)["error"] == sentence


def test_what_the_task_does_not_take_is_named(classifier):
    error = answer(classifier, "/predict", {"text": "a", "query": "c"}, 422)["error"]
    assert error == "the request: got 'query'; text-classification takes text"


def test_the_path_of_the_model_is_hugging_face_s(embedder, ranker):
    for path in ("", "/"):
        assert answer(embedder, path, {"inputs": "a b"})[0][0] == 2
        assert len(answer(embedder, path, {"inputs": ["a b", "a"], "parameters": {"normalize": True}})) == 2
    assert answer(ranker, "", {"inputs": {"query": "a", "text": "b c"}}) == {"score": 2}
    assert answer(ranker, "", {"inputs": [{"query": "a", "text": "b c"}]}) == [{"score": 2}]


@pytest.mark.parametrize(
    "parameters",
    [{"generate_parameters": 1}, {"generate_parameters": ["a"]}, {"truncate": "yes"}, {"nope": 1}],
)
def test_wrong_parameters_are_named(embedder, parameters):
    sentence = answer(embedder, "", {"inputs": "a", "parameters": parameters}, 422)["error"]
    assert sentence.startswith(f"parameters.{next(iter(parameters))}: ")


def test_sentences_are_compared(embedder):
    inputs = {"source_sentence": "a b", "sentences": ["a b", "a"]}
    assert answer(embedder, "", {"inputs": inputs}) == pytest.approx([5, 3])


def test_text_embeddings_inference_says_what_it_serves(embedder, ranker):
    about = embedder.get("/info").json()
    assert (about["model_id"], about["max_input_length"], about["max_client_batch_size"]) == (
        "minilm",
        10,
        256,
    )
    assert "embedding" in about["model_type"]
    assert "reranker" in ranker.get("/info").json()["model_type"]


class FakeClassifier(fake_model.FakeModel):
    """Imitates text-classification with pairs."""

    input_names = ("text", "text_pair")

    def encode(self, text, parameters, limit):
        texts = text if isinstance(text, str) else f"{text.first} {text.second}"
        return super().encode(texts, parameters, limit)

    def decode(self, text, encoded, outputs, parameters):
        labels = [{"label": "A", "score": outputs[0]}, {"label": "B", "score": 0.5}]
        return {**labels[0], "top": labels[: parameters.top_k], "function": parameters.function_to_apply}


@pytest.fixture(scope="module")
def pair_classifier():
    args = ModelArgs(name="pairs", uri="file:///models/pairs", task=Task.TEXT_CLASSIFICATION)
    with TestClient(model_application(BatchEngine(args, FakeClassifier(), UserConfig()))) as client:
        yield client


def test_text_embeddings_inference_s_predict_takes_texts_and_pairs(pair_classifier):
    for inputs, tokens in (("a", 1), (["a", "b"], 2)):
        got = answer(pair_classifier, "/predict", {"inputs": inputs})
        assert [each["score"] for each in got] == [tokens, 0.5]
    got = answer(pair_classifier, "/predict", {"inputs": [["a"], ["a", "b c"]]})
    assert [each[0]["score"] for each in got] == [1, 3]
    assert answer(pair_classifier, "/predict", {"inputs": [["a", "b", "c"]]}, 422)["code"] == "invalid_input"


def test_hugging_face_s_classification_has_all_labels(pair_classifier):
    assert len(answer(pair_classifier, "", {"inputs": "a"})[0]) == 2
    assert len(answer(pair_classifier, "", {"inputs": "a", "parameters": {"top_k": 1}})[0]) == 1
    got = answer(pair_classifier, "", {"inputs": ["a", {"text": "b", "text_pair": "c"}]})
    assert [each[0]["score"] for each in got] == [1, 2]


# Bodies that are wrong in every protocol; then, of a good body, members that are left out, unknown, or wrong.
WRONG_BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "two documents": b"{}{}",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "a text": b'"a"',
    "not UTF-8": b'{"input": "\xff"}',
    "no member": b"{}",
    "NaN": b'{"input": NaN}',
    "deep": b'{"input":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a lone surrogate": b'{"input": "\\ud800", "inputs": "\\ud800", "query": "\\ud800"}',
    "a huge number": b'{"dimensions": 1e999}',
    "a comment": b'{"input": "a", "inputs": "a", "query": "a" /* hm */}',
    "single quotes": b"{'inputs': 'a'}",
    "a comma too many": b'{"inputs": "a",}',
    "a form": b"inputs=a&input=a",
    "bytes": bytes(range(256)),
}
WRONG_VALUES = {
    "null": None,
    "number": 7.5,
    "negative": -3,
    "true": True,
    "object": {"a": 1},
    "nested": [[["a"]]],
    "empty": [],
}
GOOD_BODIES = {
    ("embedder", EMBEDDINGS): {
        "model": "minilm", "input": ["a"], "encoding_format": "float", "dimensions": 1, "user": "u",
    },
    ("embedder", "/embed"): {"inputs": ["a"], "truncate": True, "normalize": True},
    ("ranker", RERANK): {
        "query": "a", "texts": ["b"], "raw_scores": False, "return_text": True, "truncate": True,
    },
    ("ranker", "/v1/rerank"): {
        "model": "ranker", "query": "a", "documents": ["b"], "top_n": 1, "return_documents": True,
    },
    ("embedder", ""): {"inputs": ["a"], "normalize": True, "truncate": True, "dimensions": 1,
        "parameters": {"normalize": True}, "options": {}, "stream": False},
    ("pair_classifier", "/predict"): {"inputs": [["a", "b"]], "raw_scores": True, "truncate": True},
}  # fmt: skip
# Values that a member may well have.
ALLOWED = {
    ("model", "null"), ("dimensions", "null"), ("user", "null"), ("truncate", "null"), ("truncate", "true"),
    ("normalize", "null"), ("normalize", "true"), ("raw_scores", "true"), ("return_text", "true"),
    ("return_documents", "true"), ("top_n", "null"), ("options", "object"),
}  # fmt: skip


def bad_bodies(good):
    yield from WRONG_BODIES.items()
    for name in good:
        for kind, value in WRONG_VALUES.items():
            if (name, kind) not in ALLOWED:
                yield f"{name} is {kind}", json.dumps({**good, name: value}).encode()
    yield "unknown member", json.dumps({**good, "nope": 1}).encode()
    yield "another model", json.dumps({**good, "model": "other"}).encode()
    for name in ("input", "inputs", "texts", "documents"):
        if name in good:
            yield "too many", json.dumps({**good, name: ["a"] * 300}).encode()
            yield "an empty text", json.dumps({**good, name: ["a", " "]}).encode()
            yield "a number", json.dumps({**good, name: ["a", 1]}).encode()


@pytest.mark.parametrize(("client", "path"), GOOD_BODIES)
def test_forty_kinds_of_bad_bodies_are_errors_in_the_protocol_s_shape(request, client, path):
    http, good = request.getfixturevalue(client), GOOD_BODIES[client, path]
    bodies = dict(bad_bodies(good))
    assert len(bodies) >= 39
    for kind, body in bodies.items():
        response = http.post(path, content=body, headers={"content-type": "application/json"})
        assert 400 <= response.status_code < 500, (kind, response.text)
        document = response.json()
        if path == EMBEDDINGS:
            assert document["error"]["type"] == "invalid_request_error", kind
            assert document["error"]["message"], kind
        else:
            assert isinstance(document["error"], str), kind
        if path.endswith("/rerank"):
            assert document["message"] == document["detail"] == document["error"]
        assert len(response.content) < 2000, kind
    assert http.post(path, json=good).status_code == 200


@pytest.mark.parametrize(("client", "path"), GOOD_BODIES)
def test_other_methods_are_errors_in_the_protocol_s_shape(request, client, path):
    response = request.getfixturevalue(client).put(path, json={})
    assert response.status_code == 405
    assert response.headers["allow"]
    error = response.json()["error"]
    assert (error["code"] if path == EMBEDDINGS else response.json()["code"]) == "method_not_allowed"
