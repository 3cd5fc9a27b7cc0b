"""Good requests: plain JSON, Open Inference Protocol with its binary tensors, embeddings, and the pages."""

import codecs
import gzip
import json
import struct

import pytest
from starlette.testclient import TestClient

from serve_app.contract import MAX_BODY_BYTES
from serve_app.protocols import model_application
from tests.unit import fake_model
from tests.unit.test_http_errors import BINARY, LENGTH, binary_request, element, infer_body, tensor

PREFIX = "/v2/models/sentiment"


def application(**user_config):
    return model_application(fake_model.service(**user_config).engine)


@pytest.fixture(scope="module")
def client():
    with TestClient(application()) as client:
        yield client


@pytest.fixture(scope="module")
def mounted():
    """The application below its prefix, as Serve mounts it: the path stays whole."""
    with TestClient(application(), root_path=PREFIX, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def embedder():
    with TestClient(model_application(fake_model.embedding_service().engine)) as client:
        yield client


def infer(client, document, headers=None):
    response = client.post("/infer", json=document, headers=headers)
    assert response.status_code == 200, response.text
    return response


def outputs_of(response):
    return {output["name"]: output for output in response.json()["outputs"]}


def split(response):
    """Return the JSON and the bytes of each tensor of a binary answer."""
    length = int(response.headers[LENGTH])
    document = json.loads(response.content[:length])
    chunks, position = {}, length
    for output in document["outputs"]:
        end = position + output.get("parameters", {}).get("binary_data_size", 0)
        chunks[output["name"]] = response.content[position:end]
        position = end
    assert position == len(response.content)
    return document, chunks


def test_one_text_is_answered_beside_the_name_of_the_model(client):
    response = client.post("/predict", json={"text": "one two"})
    assert response.json() == {
        "model": "sentiment",
        "label": "one",
        "score": 1.0,
        "vector": [2, 0.5],
        "details": [{"words": ["one", "two"], "top_k": None}],
    }


def test_several_texts_are_answered_in_order(client):
    answer = client.post("/predict", json={"texts": ["one", "two two"]}).json()
    assert [prediction["label"] for prediction in answer["predictions"]] == ["one", "two"]


def test_a_list_of_one_text_is_answered_with_a_list(client):
    assert len(client.post("/predict", json={"texts": ["one"]}).json()["predictions"]) == 1


@pytest.mark.parametrize("content_type", [None, "application/json", "Application/JSON; charset=utf-8"])
def test_the_content_type_may_be_written_in_several_ways(client, content_type):
    headers = {"content-type": content_type} if content_type else {}
    assert client.post("/predict", content=b'{"text": "a"}', headers=headers).status_code == 200


def test_the_name_of_the_model_may_be_given(client):
    assert client.post("/predict", json={"text": "a", "model": "sentiment"}).status_code == 200


def test_text_beyond_ascii_comes_back_as_it_was(client):
    assert client.post("/predict", json={"text": "日本語 🙂"}).json()["label"] == "日本語"


def test_parameters_reach_the_model(client):
    answer = client.post("/predict", json={"text": "a", "parameters": {"top_k": 3}}).json()
    assert answer["details"][0]["top_k"] == 3


@pytest.mark.parametrize("path", ["/predict", "/infer"])
def test_an_answer_is_json_even_where_the_model_has_no_number(client, path):
    body = {"text": fake_model.NOT_A_NUMBER}
    document = infer_body(inputs=[tensor(data=[fake_model.NOT_A_NUMBER])]) if path == "/infer" else body
    json.loads(client.post(path, json=document).content, parse_constant=pytest.fail)


def test_inference_answers_every_output(client):
    outputs = outputs_of(infer(client, infer_body(inputs=[tensor(shape=[2], data=["one", "two two"])])))
    assert outputs["label"] == {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["one", "two"]}
    assert outputs["score"] == {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.5, 1.0]}
    assert (outputs["vector"]["shape"], outputs["vector"]["data"]) == ([2, 2], [1, 0.5, 2, 0.5])
    assert json.loads(outputs["details"]["data"][1]) == [{"words": ["two", "two"], "top_k": None}]


@pytest.mark.parametrize(
    ("shape", "data"),
    [([2], ["a", "b"]), ([2, 1], ["a", "b"]), ([2, 1], [["a"], ["b"]]), ([1, 2], [["a", "b"]])],
)
def test_a_column_and_a_row_of_texts_are_texts(client, shape, data):
    outputs = outputs_of(infer(client, infer_body(inputs=[tensor(shape=shape, data=data)])))
    assert outputs["label"]["data"] == ["a", "b"]


def test_the_id_comes_back(client):
    assert infer(client, infer_body(id="my-7")).json()["id"] == "my-7"
    assert "id" not in infer(client, infer_body()).json()


def test_only_the_outputs_that_are_asked_for_come_in_their_order(client):
    asked = [{"name": "score"}, {"name": "label"}]
    response = infer(client, infer_body(outputs=asked))
    assert [output["name"] for output in response.json()["outputs"]] == ["score", "label"]


def test_members_that_the_protocol_does_not_know_are_left_to_others(client):
    infer(client, infer_body(inputs=[tensor(surprise=1)], surprise=2))


def test_the_protocols_own_parameters_are_not_the_tasks(client):
    infer(client, infer_body(parameters={"sequence_id": 1, "priority": 2, "timeout": 3}))


def test_parameters_of_the_task_reach_the_model(client):
    outputs = outputs_of(infer(client, infer_body(parameters={"top_k": 4})))
    assert json.loads(outputs["details"]["data"][0])[0]["top_k"] == 4


def test_texts_in_binary_are_read(client):
    body, headers = binary_request(element(b"one") + element("zwei Wörter".encode()), shape=(2,))
    response = client.post("/infer", content=body, headers=headers)
    assert outputs_of(response)["score"]["data"] == [0.5, 1.0]


def test_one_output_in_binary_follows_the_json(client):
    asked = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}]
    document, chunks = split(infer(client, infer_body(outputs=asked)))
    score, label = document["outputs"]
    assert (score["shape"], score["parameters"], "data" in score) == ([1], {"binary_data_size": 4}, False)
    assert struct.unpack("<f", chunks["score"]) == (0.5,)
    assert label["data"] == ["a"]


def test_all_outputs_in_binary_make_the_round_trip(client):
    body = infer_body(
        inputs=[tensor(shape=[2], data=["one", "zwölf"])], parameters={"binary_data_output": True}
    )
    response = infer(client, body)
    document, chunks = split(response)
    assert response.headers["content-type"] == BINARY["content-type"]
    assert [output["name"] for output in document["outputs"]] == ["label", "score", "vector", "details"]
    assert chunks["label"] == element(b"one") + element("zwölf".encode())
    assert struct.unpack("<2f", chunks["score"]) == (0.5, 0.5)
    assert struct.unpack("<4f", chunks["vector"]) == (1, 0.5, 1, 0.5)


def test_a_json_request_may_state_the_length_of_its_json(client):
    body = json.dumps(infer_body()).encode()
    headers = BINARY | {LENGTH: str(len(body))}
    assert client.post("/infer", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("inputs", "vectors"),
    [("one two", [[2, 1]]), (["one"], [[1, 1]]), (["one", "two b"], [[1, 1], [2, 1]])],
)
def test_embed_answers_a_bare_list_of_vectors_in_the_order_of_the_texts(embedder, inputs, vectors):
    response = embedder.post("/embed", json={"inputs": inputs})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == vectors


@pytest.mark.parametrize(("normalize", "normalized"), [(True, 1), (False, 0), (None, 1)])
def test_embed_normalizes_unless_the_request_says_otherwise(embedder, normalize, normalized):
    assert embedder.post("/embed", json={"inputs": "a", "normalize": normalize}).json() == [[1, normalized]]


def test_embed_normalizes_whatever_the_endpoint_says():
    fake = fake_model.embedding_service(parameters={"normalize": False})
    with TestClient(model_application(fake.engine)) as client:
        assert client.post("/embed", json={"inputs": "a"}).json() == [[1, 1]]


@pytest.mark.parametrize(
    ("endpoint", "request_", "status"),
    [(True, None, 200), (False, True, 200), (True, False, 422), (False, None, 422)],
)
def test_a_request_says_whether_it_is_truncated_and_else_the_endpoint(endpoint, request_, status):
    fake = fake_model.embedding_service(truncate_input=endpoint)
    with TestClient(model_application(fake.engine)) as client:
        response = client.post("/embed", json={"inputs": "word " * 20, "truncate": request_})
    assert response.status_code == status
    assert status != 200 or response.json() == [[10, 1]]


def test_a_vector_is_json_even_where_the_model_has_no_number(embedder):
    response = embedder.post("/embed", json={"inputs": fake_model.NOT_A_NUMBER})
    assert json.loads(response.content, parse_constant=pytest.fail) == [[None, 1]]


@pytest.mark.parametrize("path", ["", "/"])
def test_the_model_describes_itself(client, path):
    described = client.get(path).json()
    # Those two have tests of their own.
    assert {"cold_start", "memory"} <= described["parameters"].keys()
    del described["parameters"]["cold_start"], described["parameters"]["memory"]
    assert described == {
        "name": "sentiment",
        "versions": ["1"],
        "platform": "transformers",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "vector", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "details", "datatype": "BYTES", "shape": [-1]},
        ],
        "parameters": {
            "task": "text-classification",
            # The folder is of no concern to clients.
            "uri": "",
            "revision": "",
            "commit": "",
            "max_input_tokens": 10,
            "truncate_input": False,
            "dtype": "float32",
        },
    }


def test_the_metadata_name_the_commit_that_is_served():
    """Where the revision is a branch or none, replicas may serve different commits."""
    engine = fake_model.service().engine
    engine.commit = "0123456789abcdef"
    with TestClient(model_application(engine)) as client:
        assert client.get("").json()["parameters"]["commit"] == "0123456789abcdef"


@pytest.mark.parametrize("path", ["/ready", "/ready/"])
def test_a_loaded_model_is_ready(client, path):
    assert client.get(path).json() == {"name": "sentiment", "ready": True}


@pytest.mark.parametrize("path", ["/predict/", "/infer/"])
def test_a_slash_at_the_end_is_no_redirect(client, path):
    document = infer_body() if "infer" in path else {"text": "a"}
    assert client.post(path, json=document, follow_redirects=False).status_code == 200


@pytest.mark.parametrize("path", [PREFIX, f"{PREFIX}/", f"{PREFIX}/ready", f"{PREFIX}/ready/"])
def test_below_its_prefix_every_page_is_there(mounted, path):
    assert mounted.get(path, follow_redirects=False).json()["name"] == "sentiment"


@pytest.mark.parametrize("path", [f"{PREFIX}/predict", f"{PREFIX}/predict/"])
def test_below_its_prefix_the_model_answers(mounted, path):
    assert mounted.post(path, json={"text": "one"}).json()["label"] == "one"


def test_below_its_prefix_an_unknown_path_is_shown_whole(mounted):
    response = mounted.post(f"{PREFIX}/nope", json={"text": "one"})
    assert (response.status_code, response.json()["error"]) == (404, f"there is nothing at {PREFIX}/nope")


GZIP = {"content-type": "application/json", "content-encoding": "gzip"}


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_a_body_may_be_in_gzip(client, encoding):
    packed = gzip.compress(b'{"text": "one"}')
    response = client.post("/predict", content=packed, headers={**GZIP, "content-encoding": encoding})
    assert response.json()["label"] == "one"


def test_a_body_may_begin_with_a_byte_order_mark(client):
    plain = codecs.BOM_UTF8 + b'{"text": "one"}'
    assert client.post("/predict", content=plain).json()["label"] == "one"
    assert client.post("/predict", content=gzip.compress(plain), headers=GZIP).json()["label"] == "one"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"text": "one"}', 400),
        (gzip.compress(b'{"text": "one"}')[:-4], 400),
        (gzip.compress(b'{"text": "one"}') + b"more", 400),
        (gzip.compress(b" " * (MAX_BODY_BYTES + 1)), 413),
        (gzip.compress(b"0" * 1_000_000_000, 1), 413),
        (gzip.compress(b""), 400),
    ],
    ids=["no gzip", "cut short", "more behind it", "a byte too many", "a gigabyte of it", "nothing in it"],
)
def test_bad_gzip_is_the_clients_error(client, body, status):
    assert client.post("/predict", content=body, headers=GZIP).status_code == status


def test_head_is_get_without_the_body(client):
    assert client.head("/ready").status_code == 200
    assert client.head("/ready").content == b""
    assert client.head("/predict").status_code == 405
    response = client.options("/predict")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
