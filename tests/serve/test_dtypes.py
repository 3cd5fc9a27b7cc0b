"""The dtype that a model gets, and what its metadata says about it."""

import logging

import pytest
import torch
import transformers

from serve_app.contract import Task
from serve_app.engine.base import ModelLoadError
from serve_app.loading.dtypes import resolve_dtype
from serve_app.loading.proof import CHECK_TEXTS
from serve_app.tasks import task_class
from tests.serve import tiny_models

COMPARED = [task for task in Task if task_class(task).compared]
GENERATING = [task for task in Task if task not in COMPARED]


def with_cpu(monkeypatch, **capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.fixture(params=["avx512_bf16", "amx_bf16"])
def fast_bfloat16(request, monkeypatch):
    with_cpu(monkeypatch, **{request.param: True})


@pytest.fixture
def close_labels(tmp_path):
    """Two labels whose scores differ by less than bfloat16 can tell."""
    folder = tiny_models.write(Task.TEXT_CLASSIFICATION, tmp_path / "close")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([100.0, 100.1, 0.0]))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch, tmp_path_factory):
    """Each test proves its model, whatever another run has proved."""
    folder = tmp_path_factory.mktemp("proofs")
    monkeypatch.setattr("serve_app.loading.kept_proofs._folder", lambda: folder)


@pytest.mark.parametrize("task", COMPARED)
def test_auto_is_bfloat16_where_the_cpu_computes_it(task, tmp_path, fast_bfloat16):
    description = task_class(task)(tiny_models.write(task, tmp_path / "model"), "auto").description
    proof = description["proof"]
    assert proof["texts"] == len(CHECK_TEXTS) + 2
    assert 0 <= proof["greatest_difference"] < 1
    assert description["dtype"] == ("float32" if proof["because"] else "bfloat16")
    assert proof["step"].startswith(description["dtype"])


@pytest.mark.parametrize("task", Task)
def test_auto_is_float32_on_other_cpus(task, tmp_path, monkeypatch):
    with_cpu(monkeypatch, avx512_f=True)
    description = task_class(task)(tiny_models.write(task, tmp_path / "model"), "auto").description
    assert description["dtype"] == "float32"
    assert description["proof"]["because"] == []


@pytest.mark.parametrize("task", GENERATING)
def test_what_generates_stays_in_float32_unless_a_dtype_is_named(task, tmp_path, fast_bfloat16):
    model = task_class(task)(tiny_models.write(task, tmp_path / "model"), "auto")
    assert model.description["dtype"] == "float32"


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_dtype_that_changes_labels_is_dropped_and_the_metadata_says_why(
    dtype, close_labels, fast_bfloat16, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("ray.serve"), "propagate", True)
    description = task_class(Task.TEXT_CLASSIFICATION)(close_labels, dtype).description
    assert description["dtype"] == "float32"
    assert description["proof"]["because"][0].startswith(
        "bfloat16, own layers, mixed lengths: 18 of 18 answers"
    )
    assert "not served in bfloat16" in caplog.text


@pytest.mark.parametrize("task", COMPARED)
def test_int8_is_there_for_those_who_ask(task, tmp_path):
    description = task_class(task)(tiny_models.write(task, tmp_path / "model"), "int8").description
    because = description["proof"]["because"]
    assert all(reason.startswith("int8, ") for reason in because)
    assert description["dtype"] == ("float32" if because else "int8")


def test_int8_is_dropped_if_it_changes_labels(close_labels, monkeypatch):
    def spoil(model):
        model.classifier.bias.data[:] = torch.tensor([1.0, 0.0, 0.0])

    monkeypatch.setattr("serve_app.loading.prepare.quantize", spoil)
    description = task_class(Task.TEXT_CLASSIFICATION)(close_labels, "int8").description
    assert description["dtype"] == "float32"
    assert [reason[:4] for reason in description["proof"]["because"]] == ["int8", "int8"]


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_a_model_that_generates_is_proved_in_the_dtype_that_it_is_given(dtype, tmp_path):
    folder = tiny_models.write(Task.TEXT2TEXT_GENERATION, tmp_path / "model")
    description = task_class(Task.TEXT2TEXT_GENERATION)(folder, dtype).description
    assert description["dtype"] == ("float32" if description["proof"]["because"] else dtype)


def test_int8_is_not_for_accelerators(tmp_path, monkeypatch):
    monkeypatch.setattr("serve_app.loading.prepare.this_device", lambda: torch.device("cuda"))
    with pytest.raises(ModelLoadError, match="int8 runs on processors only; use bfloat16 or float16"):
        task_class(Task.FILL_MASK)(tiny_models.write(Task.FILL_MASK, tmp_path / "model"), "int8")


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bfloat16"), (False, "float16")])
@pytest.mark.parametrize("compared", [True, False])
def test_on_cuda_auto_is_a_half_format(supported, chosen, compared, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert resolve_dtype("auto", torch.device("cuda"), compared=compared) == chosen
