"""Every architecture with every task that it has: the right answer, alone and in batches, or a refusal.

The right answers are those of transformers' own float32 model, one text at a time.
"""

import pytest
import torch

from serve_app.contract import Task
from serve_app.engine.base import ModelLoadError, TextPair
from serve_app.tasks import task_class
from tests.folders import architectures, asking

MASKED = [f"[MASK] {text}" for text in asking.TEXTS]
NEED_DECODER_INPUTS = ["blenderbot", "m2m_100", "marian", "pegasus"]
# What cannot be served, and why; transformers fails on it too.
REFUSED = {
    # They need what their decoder has said so far.
    **{(name, Task.FEATURE_EXTRACTION): "fails on a text: ValueError: You" for name in NEED_DECODER_INPUTS},
    # Of several texts at once, transformers' own answers are others than alone, at equal lengths too.
    ("rwkv", Task.TEXT_GENERATION): "equal lengths: 4 of 4 answers differ in a batch",
    # It knows a question by the separators of RoBERTa's tokenizer, as a test of its own shows.
    ("longformer", Task.QUESTION_ANSWERING): "There should be exactly three separator tokens",
    # It takes texts of one length only.
    **{("nystromformer", task): "fails on a text: RuntimeError: shape" for task in Task},
}


PAIRS = [TextPair("good ?", text) for text in asking.TEXTS]


def texts_of(task):
    return {Task.FILL_MASK: MASKED, Task.QUESTION_ANSWERING: PAIRS}.get(task, asking.TEXTS)


def answers(model, task, *, alone):
    """Return the model's predictions in the form of the right answers."""
    parameters = {
        Task.TEXT_CLASSIFICATION: {"top_k": 3},
        Task.TOKEN_CLASSIFICATION: {"aggregation_strategy": "none"},
        Task.FILL_MASK: {"top_k": 5},
        Task.QUESTION_ANSWERING: {"align_to_words": False},
    }.get(task, {} if task is Task.FEATURE_EXTRACTION else {"max_new_tokens": asking.NEW_TOKENS})
    return asking.predictions(model, task, texts_of(task), alone=alone, **parameters)


def check(task, got, right, tolerance):
    """Fail unless the prediction says the same as the right answer."""
    if task is Task.TEXT_CLASSIFICATION:
        scores = {item["label"]: item["score"] for item in got["top"]}
        assert [scores[f"LABEL_{index}"] for index in range(3)] == pytest.approx(
            right.tolist(), abs=tolerance
        )
    elif task is Task.TOKEN_CLASSIFICATION:
        for entity in got["entities"]:
            # transformers numbers the special tokens too.
            row = right[entity["index"]]
            assert entity["score"] == pytest.approx(float(row[int(entity["entity"][-1])]), abs=tolerance)
            assert entity["score"] >= float(row.max()) - tolerance
        assert len(got["entities"]) in (len(right), len(right) - 2)
    elif task is Task.FILL_MASK:
        best = right[0].topk(5).values.tolist()
        assert [fill["score"] for fill in got["fills"]] == pytest.approx(best, abs=tolerance)
    elif task is Task.QUESTION_ANSWERING:
        # Spans of equal text are one answer.
        assert got["score"] >= float(right) - tolerance
        assert got["score"] <= 5 * float(right) + tolerance
    elif task is Task.FEATURE_EXTRACTION:
        vector = torch.tensor(got["embedding"])
        assert len(vector) == len(right)
        assert float(torch.cosine_similarity(vector, right, dim=0)) > 1 - tolerance
    else:
        assert got["generated_text"] == right


@pytest.mark.parametrize(("name", "task"), architectures.PAIRS, ids=lambda each: str(each))
def test_each_answer_is_right_or_the_model_is_refused(name, task, tmp_path):
    folder = architectures.write(name, task, tmp_path / "model")
    if (name, task) in REFUSED:
        with pytest.raises(ModelLoadError, match=REFUSED[name, task]):
            task_class(task)(folder, "float32")
        return
    right = asking.right_answers(architectures.auto_class(task), task, folder, texts_of(task))
    model = task_class(task)(folder, "float32")
    for alone in (True, False):
        for got, wanted in zip(answers(model, task, alone=alone), right, strict=True):
            check(task, got, wanted, 1e-3)
    if task is Task.TEXT_GENERATION:
        assert (model.steps is None) == (name in architectures.WHOLE_BATCHES)
    if task in (Task.TEXT_GENERATION, Task.TEXT2TEXT_GENERATION):
        # In another dtype, other words may be as good.
        return
    half = task_class(task)(folder, "bfloat16")
    for alone in (True, False):
        for got, wanted in zip(answers(half, task, alone=alone), right, strict=True):
            check(task, got, wanted, 0.15)


def test_there_are_many_architectures():
    assert len({name for name, _ in architectures.PAIRS}) >= 90
