"""Outputs in FP16 and BF16 over both transports of the Open Inference Protocol, read by Triton's client."""

import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from starlette.testclient import TestClient
from tritonclient.http import InferResult
from tritonclient.utils import triton_to_np_dtype

from serve_app.http.errors import InvalidInputError
from serve_app.protocols import model_application
from serve_app.protocols.open_inference_tensors import OutputTensor
from tests.unit import fake_model
from tests.unit.test_http_errors import LENGTH, infer_body, require_error
from tests.unit.test_rpc import INVALID, call, infer, packed, raw, request

HALVES = {datatype: triton_to_np_dtype(datatype) for datatype in ("FP16", "BF16")}
VALUES = [0.0, -0.0, 1.0, 1 / 3, -2.718281828, 1e-3, 6.1e-5, 3e-8, 1.00390625, 1.01171875, 65503.9, -1234.5]
BINARY = {"binary_data_output": True}


@pytest.fixture(scope="module")
def client():
    with TestClient(model_application(fake_model.service().engine)) as client:
        yield client


def read(response):
    """Return the answer as Triton's client has it."""
    assert response.status_code == 200, response.text
    return InferResult.from_response_body(response.content, header_length=int(response.headers[LENGTH]))


def datatypes(result):
    return {output["name"]: output["datatype"] for output in result.get_response()["outputs"]}


@pytest.mark.parametrize("datatype", HALVES)
def test_numbers_come_in_half_precision_over_http(client, datatype):
    result = read(client.post("/infer", json=infer_body(parameters=BINARY | {"output_datatype": datatype})))
    assert datatypes(result) == {
        "label": "BYTES",
        "score": datatype,
        "vector": datatype,
        "details": "BYTES",
    }
    assert result.as_numpy("vector").astype(np.float32).tolist() == [[1.0, 0.5]]
    assert result.as_numpy("label").tolist() == [b"a"]
    assert result.get_output("score")["parameters"] == {"binary_data_size": 2}
    assert result.get_output("vector")["parameters"] == {"binary_data_size": 4}


@pytest.mark.parametrize("datatype", HALVES)
def test_other_outputs_may_stay_in_the_json(client, datatype):
    asked = [{"name": "vector", "parameters": {"binary_data": True}}, {"name": "label"}]
    result = read(
        client.post("/infer", json=infer_body(parameters={"output_datatype": datatype}, outputs=asked))
    )
    assert datatypes(result) == {"vector": datatype, "label": "BYTES"}
    assert result.as_numpy("vector").shape == (1, 2)
    assert result.get_output("label")["data"] == ["a"]


@pytest.mark.parametrize("datatype", HALVES)
@pytest.mark.parametrize("outputs", [[], [{"name": "vector"}], [{"name": "label"}, {"name": "score"}]])
def test_json_has_no_half_precision(client, datatype, outputs):
    document = infer_body(parameters={"output_datatype": datatype}, outputs=outputs)
    sentence = require_error(client.post("/infer", json=document), 422)
    assert datatype in sentence
    assert "binary_data" in sentence


@pytest.mark.parametrize("given", ["FP64", "fp16", "", "float16", 16, True, ["FP16"], {}])
def test_another_datatype_is_refused_and_the_possible_ones_are_named(client, given):
    sentence = require_error(
        client.post("/infer", json=infer_body(parameters=BINARY | {"output_datatype": given})), 422
    )
    assert "FP32, FP16, BF16" in sentence


@pytest.mark.parametrize("given", ["FP32", None])
def test_fp32_is_the_default(client, given):
    answers = [
        client.post("/infer", json=infer_body(parameters=parameters)).content
        for parameters in ({}, {"output_datatype": given})
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("datatype", HALVES)
def test_texts_in_half_precision_stay_texts(client, datatype):
    document = infer_body(parameters={"output_datatype": datatype}, outputs=[{"name": "label"}])
    assert json.loads(client.post("/infer", json=document).content)["outputs"][0]["data"] == ["a"]


@pytest.mark.parametrize("datatype", HALVES)
@pytest.mark.parametrize("made", [request("a"), raw(packed(b"a"))], ids=["contents", "raw"])
def test_numbers_come_raw_in_half_precision_over_grpc(datatype, made):
    # The protocol has no member of contents for them, and allows no mixture of both.
    asked = type(made).FromString(made.SerializeToString())
    asked.parameters["output_datatype"].string_param = datatype
    answered = infer(asked)
    result = triton_grpc.InferResult(answered)
    assert [output.datatype for output in answered.outputs] == ["BYTES", datatype, datatype, "BYTES"]
    assert not any(output.HasField("contents") for output in answered.outputs)
    assert result.as_numpy("vector").astype(np.float32).tolist() == [[1.0, 0.5]]
    assert result.as_numpy("label").tolist() == [b"a"]


def test_another_datatype_is_refused_over_grpc():
    made = request("a")
    made.parameters["output_datatype"].string_param = "FP64"
    _, status, details = call(fake_model.service(), "ModelInfer", made.SerializeToString())
    assert (status, "FP32, FP16, BF16" in details) == (INVALID, True)


@pytest.mark.parametrize("datatype", HALVES)
def test_numbers_are_rounded_to_the_nearest(datatype):
    values = [*VALUES, float("nan"), float("inf"), float("-inf")]
    # Neighbours of the values between two numbers of BF16, and what has all bits of a mantissa.
    bits = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x3F7FFFFF, 0xFFFFFFFF], np.uint32)
    values += bits.view(np.float32).tolist()
    got = np.frombuffer(OutputTensor("n", datatype, [len(values)], values).packed(), HALVES[datatype])
    expected = np.array(values, np.float32).astype(HALVES[datatype])
    np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("datatype", "fits", "largest", "too_large"),
    [("FP16", 65519.9, 65504.0, 65520.0), ("BF16", 3.396e38, 3.3895313892515355e38, 3.3962e38)],
)
def test_a_number_that_is_too_large_is_refused_and_not_made_infinite(datatype, fits, largest, too_large):
    content = OutputTensor("n", datatype, [1], [-fits]).packed()
    assert float(np.frombuffer(content, HALVES[datatype])[0]) == -largest
    with pytest.raises(InvalidInputError, match=f"{datatype}.*FP32"):
        OutputTensor("n", datatype, [2], [1.0, too_large]).packed()
