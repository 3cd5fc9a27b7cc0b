"""Open Inference Protocol over HTTP beyond one tensor of texts: versions, nulls, pairs, optional outputs."""

import json

import pytest
from starlette.testclient import TestClient

from serve_app.contract import UserConfig
from serve_app.engine.base import Output
from serve_app.engine.batch_engine import BatchEngine
from serve_app.protocols import model_application
from tests.unit import fake_model
from tests.unit.test_http_errors import BINARY, LENGTH, element, infer_body, require_error, tensor


class FakeTop(fake_model.FakeModel):
    """Adds a member that is there only with `top_k`, and takes a second text."""

    outputs = (*fake_model.FakeModel.outputs[:2], Output("top", "BYTES", (-1,), parameter="top_k"))
    input_names = ("text", "text_pair")

    def encode(self, text, parameters, limit):
        return super().encode(_joined(text), parameters, limit)

    def decode(self, text, encoded, outputs, parameters):
        prediction = super().decode(_joined(text), encoded, outputs, parameters)
        top = {} if parameters.top_k is None else {"top": [{"label": "a"}] * parameters.top_k}
        return {"label": _joined(text), "score": prediction["score"]} | top


def _joined(text):
    return text if isinstance(text, str) else f"{text.first} {text.second}"


@pytest.fixture(scope="module")
def client():
    engine = BatchEngine(fake_model.ARGS, FakeTop(), UserConfig())
    with TestClient(model_application(engine)) as client:
        yield client


@pytest.fixture(scope="module")
def ranker():
    with TestClient(model_application(fake_model.ranking_service().engine)) as client:
        yield client


def data_of(client, document, name="label", headers=None):
    response = client.post("/infer", json=document, headers=headers)
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}.get(name)


def column(name, *texts):
    return tensor(name=name, shape=[len(texts)], data=list(texts))


@pytest.mark.parametrize("below", ["", "/", "/ready", "/infer"])
def test_the_one_version_may_be_in_the_path(client, below):
    path = f"/versions/1{below}"
    answered = client.post(path, json=infer_body()) if "infer" in below else client.get(path)
    assert (answered.status_code, answered.json().get("name", "sentiment")) == (200, "sentiment")


@pytest.mark.parametrize("version", ["2", "01", "one", "1.0"])
@pytest.mark.parametrize("below", ["", "/ready", "/infer"])
def test_another_version_is_not_there(client, version, below):
    path = f"/versions/{version}{below}"
    answered = client.post(path, json=infer_body()) if "infer" in below else client.get(path)
    assert "one version, '1'" in require_error(answered, 404)
    assert answered.json()["code"] == "unknown_version"


def test_the_answer_and_the_metadata_name_the_version(client):
    assert client.post("/infer", json=infer_body()).json()["model_version"] == "1"
    assert client.get("/").json()["versions"] == ["1"]


def test_null_is_as_absent(client):
    nulls = {"id": None, "parameters": None, "outputs": None}
    inputs = [tensor(parameters=None), tensor(name="text_pair", parameters={"binary_data_size": None})]
    assert data_of(client, infer_body(inputs=inputs, **nulls)) == ["a a"]
    asked = [{"name": "label", "parameters": None}, {"name": "score", "parameters": {"binary_data": None}}]
    assert data_of(client, infer_body(parameters={"top_k": None}, outputs=asked)) == ["a"]


@pytest.mark.parametrize("data", [[[["a"], ["b"]], [["c"], ["d"]]], [[[["a", "b", "c", "d"]]]], list("abcd")])
def test_nested_data_are_in_row_major_order(client, data):
    assert data_of(client, infer_body(inputs=[tensor(shape=[2, 2], data=data)])) == list("abcd")


def test_extra_parameters_of_an_output_change_nothing(client):
    asked = [{"name": "label", "parameters": {"classification": 2, "binary_data": False}}]
    assert data_of(client, infer_body(outputs=asked)) == ["a"]


def test_an_optional_output_is_there_with_its_parameter(client):
    assert data_of(client, infer_body(), "top") is None
    top = data_of(client, infer_body(parameters={"top_k": 2}), "top")
    assert [json.loads(text) for text in top] == [[{"label": "a"}] * 2]


def test_an_optional_output_without_its_parameter_is_refused(client):
    answered = client.post("/infer", json=infer_body(outputs=[{"name": "top"}]))
    assert "only with the parameter top_k" in require_error(answered, 422)


def test_the_metadata_say_what_is_optional(client):
    described = client.get("/").json()
    assert described["outputs"][2] == {
        "name": "top",
        "datatype": "BYTES",
        "shape": [-1],
        "parameters": {"only_with": "top_k"},
    }
    assert [each.get("parameters") for each in described["inputs"]] == [None, {"optional": True}]


def test_two_tensors_are_pairs(client):
    inputs = [column("text_pair", "c", "d"), column("text", "a", "b")]
    assert data_of(client, infer_body(inputs=inputs)) == ["a c", "b d"]


@pytest.mark.parametrize(
    ("first", "second"), [(("a", "b"), ("c",)), (("a",), ("c", "d")), (("a", "b", "c"), ("d",))]
)
def test_one_element_is_for_all(client, first, second):
    count = max(len(first), len(second))
    inputs = [column("text", *first), column("text_pair", *second)]
    pairs = zip(first * count, second * count, strict=False)
    expected = [f"{one} {other}" for one, other in pairs][:count]
    assert data_of(client, infer_body(inputs=inputs)) == expected


def test_a_query_is_for_all_texts(ranker):
    inputs = [column("query", "q"), column("text", "a b", "a", "a b c")]
    assert data_of(ranker, infer_body(inputs=inputs), "score") == [2, 1, 3]


def test_two_binary_tensors_follow_the_json(client):
    one, other = element(b"a") + element(b"b"), element(b"c") * 2
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(chunk)}}
        for name, chunk in (("text", one), ("text_pair", other))
    ]
    head = json.dumps({"inputs": inputs}).encode()
    headers = BINARY | {LENGTH: str(len(head))}
    response = client.post("/infer", content=head + one + other, headers=headers)
    assert response.json()["outputs"][0]["data"] == ["a c", "b c"]


BAD = {
    "two tensors of one name": infer_body(inputs=[tensor(), tensor()]),
    "an unknown second tensor": infer_body(inputs=[tensor(), tensor(name="other")]),
    "only the second tensor": infer_body(inputs=[tensor(name="text_pair")]),
    "three tensors": infer_body(inputs=[tensor(), tensor(name="text_pair"), tensor(name="c")]),
    "two and three elements": infer_body(inputs=[column("text", *"ab"), column("text_pair", *"abc")]),
    "no second element": infer_body(inputs=[column("text", "a"), column("text_pair")]),
    "an empty second text": infer_body(inputs=[tensor(), tensor(name="text_pair", data=[""])]),
    "a null element": infer_body(inputs=[tensor(data=[None])]),
    "a true element": infer_body(inputs=[tensor(data=[True])]),
    "an object deep inside": infer_body(inputs=[tensor(data=[[[{}]]])]),
    "null as data": infer_body(inputs=[tensor(data=None)]),
    "null as inputs": infer_body(inputs=None),
    "a null input": infer_body(inputs=[None]),
    "a null shape": infer_body(inputs=[tensor(shape=None)]),
    "a null in the shape": infer_body(inputs=[tensor(shape=[None])]),
    "a shape of true": infer_body(inputs=[tensor(shape=[True])]),
    "outputs is an object": infer_body(outputs={"name": "label"}),
    "a null output": infer_body(outputs=[None]),
    "an output's name is a number": infer_body(outputs=[{"name": 1}]),
    "binary_data is a word": infer_body(outputs=[{"name": "label", "parameters": {"binary_data": "yes"}}]),
    "parameters is a list": infer_body(parameters=[1]),
    "a parameter of a wrong type": infer_body(parameters={"top_k": "two"}),
}


@pytest.mark.parametrize("document", BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_the_clients_error(client, document):
    require_error(client.post("/infer", json=document), 422)


@pytest.mark.parametrize("nesting", [100, 150])
def test_deep_nesting_is_read(client, nesting):
    content = b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": '
    content += b"[" * nesting + b'"a"' + b"]" * nesting + b"}]}"
    assert client.post("/infer", content=content).status_code == 200


def test_nesting_without_end_is_malformed(client):
    content = b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": '
    content += b"[" * 50_000 + b'"a"' + b"]" * 50_000 + b"}]}"
    require_error(client.post("/infer", content=content), 400)
