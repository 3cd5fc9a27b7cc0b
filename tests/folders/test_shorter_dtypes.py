"""What a shorter dtype may change, and what cannot be computed in it, on folders of several kinds."""

import pytest
import torch
import transformers

from serve_app.contract import Task
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.serve import tiny_models

CLASSIFY, RANK, REWRITE = Task.TEXT_CLASSIFICATION, Task.TEXT_RANKING, Task.TEXT2TEXT_GENERATION


def scores(model, right):
    found = asking.predictions(model, CLASSIFY, top_k=len(right[0]))
    return [{each["label"]: each["score"] for each in answer["top"]} for answer in found]


@pytest.mark.parametrize(
    "labels", [{"num_labels": 1}, {"num_labels": 4, "problem_type": "multi_label_classification"}], ids=str
)
def test_scores_that_int8_moves_are_served_in_float32(labels, tmp_path):
    """The highest of one label, or of several that may all be right, stays the same, and says nothing."""
    torch.manual_seed(7)
    model = transformers.BertForSequenceClassification(tiny_models.bert_config(**labels))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("key.weight", "query.weight")):
                parameter.mul_(3.0)
    model.save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    right = [each.sigmoid() for each in logits_of(tmp_path)]
    served = task_class(CLASSIFY)(tmp_path, "int8")
    assert served.description["dtype"] == "float32"
    assert served.description["proof"]["because"][0].startswith("int8, ")
    for got, wanted in zip(scores(served, right), right, strict=True):
        assert [got[f"LABEL_{at}"] for at in range(len(wanted))] == pytest.approx(wanted.tolist(), abs=1e-4)


def logits_of(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in asking.TEXTS]


@pytest.mark.parametrize(
    ("name", "task"), [("mobilebert", Task.FILL_MASK), ("mamba", Task.TEXT_GENERATION)], ids=str
)
def test_what_fails_in_int8_is_served_in_float32_and_says_why_in_a_few_words(name, task, tmp_path):
    folder = architectures.write(name, task, tmp_path / "model")
    description = task_class(task)(folder, "int8").description
    assert description["dtype"] == "float32"
    because = description["proof"]["because"]
    assert because[0].startswith("int8, ")
    # Some of torch's messages have thousands of characters.
    assert max(map(len, because)) < 600


def test_what_a_model_keeps_in_float32_stays_in_float32(tmp_path):
    """T5 overflows in float16 in these layers."""
    folder = architectures.write("t5", REWRITE, tmp_path / "model")
    model = task_class(REWRITE)(folder, "float16")
    dtypes = {name: each.dtype for name, each in model._pretrained.model.named_parameters()}
    kept = {dtype for name, dtype in dtypes.items() if ".wo." in name}
    others = {dtype for name, dtype in dtypes.items() if ".wi." in name}
    assert (kept, others) == ({torch.float32}, {torch.float16})
