"""Answers of question-answering in each protocol, and whole numbers in binary tensors, on a fake."""

import json
import struct

import pytest
from starlette.testclient import TestClient

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.base import Output, TextPair, texts_of
from serve_app.engine.batch_engine import BatchEngine
from serve_app.protocols import model_application
from tests.unit import fake_model
from tests.unit.test_http_errors import infer_body, tensor

PAIR = {"question": "which one", "context": "one two"}
FAR = 2**40


class FakeReader(fake_model.FakeModel):
    """Imitates question-answering: the answers are the words of the context, and the start is a far one."""

    outputs = (
        Output("answer", "BYTES", (-1,)),
        Output("score", "FP32", (-1,)),
        Output("start", "INT64", (-1,)),
        Output("end", "INT64", (-1,)),
    )
    input_names = ("question", "context")
    warmup_text = TextPair("ready", "ready")

    def encode(self, text, parameters, limit):
        return super().encode(" ".join(texts_of(text)), parameters, limit)

    def decode(self, text, encoded, outputs, parameters):
        words = texts_of(text)[-1].split()
        answers = [{"answer": word, "score": 0.5, "start": FAR, "end": FAR + len(word)} for word in words]
        listed = {} if parameters.top_k is None else {"answers": answers[: parameters.top_k]}
        return {**answers[0], **listed}


@pytest.fixture(scope="module")
def reader():
    args = ModelArgs(name="reader", uri="file:///models/reader", task=Task.QUESTION_ANSWERING)
    with TestClient(model_application(BatchEngine(args, FakeReader(), UserConfig()))) as client:
        yield client


def answer(client, path, document):
    response = client.post(path, json=document)
    assert response.status_code == 200, response.text
    return response.json()


def test_an_answer_stands_beside_the_name_of_the_model(reader):
    best = {"answer": "one", "score": 0.5, "start": FAR, "end": FAR + 3}
    assert answer(reader, "/predict", PAIR) == {"model": "reader", **best}
    got = answer(reader, "/predict", {"texts": [PAIR], "parameters": {"top_k": 1}})
    assert got["predictions"] == [{**best, "answers": [best]}]


def test_hugging_face_s_client_reads_one_answer_or_a_list(reader):
    best = {"answer": "one", "score": 0.5, "start": FAR, "end": FAR + 3}
    assert answer(reader, "", {"inputs": PAIR}) == best
    assert answer(reader, "", {"inputs": PAIR, "parameters": {"top_k": 1}}) == best
    several = answer(reader, "", {"inputs": PAIR, "parameters": {"top_k": 5}})
    assert [each["answer"] for each in several] == ["one", "two"]


def test_places_are_whole_numbers_in_json_and_in_binary(reader):
    names = ["start", "end"]
    asked = infer_body(inputs=[tensor(data=["one two"])], outputs=[{"name": name} for name in names])
    tensors = answer(reader, "/infer", asked)["outputs"]
    assert [(each["datatype"], each["data"]) for each in tensors] == [("INT64", [FAR]), ("INT64", [FAR + 3])]
    response = reader.post("/infer", json=asked | {"parameters": {"binary_data_output": True}})
    length = int(response.headers["inference-header-content-length"])
    document = json.loads(response.content[:length])
    assert [each["parameters"]["binary_data_size"] for each in document["outputs"]] == [8, 8]
    assert struct.unpack("<2q", response.content[length:]) == (FAR, FAR + 3)


def test_the_metadata_declares_whole_numbers(reader):
    outputs = reader.get("/").json()["outputs"]
    assert [each["datatype"] for each in outputs] == ["BYTES", "FP32", "INT64", "INT64"]
