"""The proof of a model: which answers count as changed, which step is taken, and what is kept of it."""

import weakref

import pytest
import torch
import transformers

from serve_app.contract import Task
from serve_app.decoders.kv_cache import KeyValueCache
from serve_app.engine.base import ModelLoadError
from serve_app.loading import prepare
from serve_app.loading.proof import (
    answer_changed,
    compare,
    direction_changed,
    generation_changed,
    label_changed,
    number_changed,
    rounding_changed,
    side_changed,
    token_label_changed,
)
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.serve import tiny_models

CLASSIFY, FEATURES, GENERATE = Task.TEXT_CLASSIFICATION, Task.FEATURE_EXTRACTION, Task.TEXT_GENERATION
NAN = float("nan")


@pytest.mark.parametrize(
    ("rule", "expected", "got", "changed"),
    [
        (rounding_changed, [0.5, 0.5], [0.5004, 0.4996], False),
        (rounding_changed, [0.5, 0.5], [0.502, 0.498], True),
        (rounding_changed, [5000.0], [5001.0], False),
        (rounding_changed, [0.5], [NAN], True),
        (label_changed, [0.6, 0.4], [0.55, 0.45], False),
        (label_changed, [0.51, 0.49], [0.49, 0.51], True),
        (label_changed, [0.9, 0.1], [0.7, 0.3], True),
        (label_changed, [0.9, 0.1], [NAN, NAN], True),
        (side_changed, [0.30], [0.31], False),
        (side_changed, [0.304], [0.544], True),
        (side_changed, [0.30], [0.35], True),
        (side_changed, [0.9, 0.48, 0.1], [0.9, 0.52, 0.1], True),
        (side_changed, [0.9, 0.42, 0.1], [0.9, 0.47, 0.1], False),
        (number_changed, [3.7], [3.75], False),
        (number_changed, [3.7], [3.9], True),
        (token_label_changed, [[0.9, 0.1], [0.51, 0.49]], [[0.8, 0.2], [0.49, 0.51]], False),
        (token_label_changed, [[0.9, 0.1]], [[0.4, 0.6]], True),
        (token_label_changed, [[0.9, 0.1]], [[NAN, NAN]], True),
        (direction_changed, [1.0, 0.0], [1.01, 0.02], False),
        (direction_changed, [1.0, 0.0], [1.0, 0.5], True),
        (direction_changed, [1.0, 0.0], [NAN, 0.0], True),
    ],
)
def test_an_answer_has_changed(rule, expected, got, changed):
    assert rule(torch.tensor(expected), torch.tensor(got)) is changed


def peaks(tokens, *ends):
    """Return probabilities of starts and ends, (2, tokens), with these at (token, of a start, of an end)."""
    rows = torch.zeros(2, tokens)
    for at, start, end in ends:
        rows[0, at], rows[1, at] = start, end
    return rows


ANSWERS = {
    "the same": (peaks(9, (3, 0.9, 0.9)), peaks(9, (3, 0.95, 0.95)), False),
    # Its start alone is the most likely one, but of no answer: the end is elsewhere, or in front of it.
    "a start without an end": (
        peaks(9, (3, 0.40, 0.8), (6, 0.39, 0.05)),
        peaks(9, (3, 0.39, 0.8), (6, 0.40, 0.05)),
        False,
    ),
    "a close call": (
        peaks(9, (3, 0.5, 0.5), (6, 0.49, 0.49)),
        peaks(9, (3, 0.49, 0.49), (6, 0.5, 0.5)),
        False,
    ),
    "another answer": (peaks(9, (3, 0.7, 0.7), (6, 0.3, 0.3)), peaks(9, (3, 0.4, 0.4), (6, 0.6, 0.6)), True),
    "another answer of a low score": (
        peaks(9, (3, 0.2, 0.2), (6, 0.1, 0.1)),
        peaks(9, (3, 0.1, 0.1), (6, 0.2, 0.2)),
        True,
    ),
    "another score": (peaks(9, (3, 0.9, 0.9)), peaks(9, (3, 0.8, 0.8)), True),
    "no answer has become likely": (
        peaks(9, (0, 0.1, 0.1), (3, 0.2, 0.2)),
        peaks(9, (0, 0.4, 0.4), (3, 0.2, 0.2)),
        True,
    ),
    "too long an answer": (
        peaks(30, (2, 0.5, 0.0), (28, 0.0, 0.5), (9, 0.3, 0.3)),
        peaks(30, (2, 0.2, 0.0), (28, 0.0, 0.2), (9, 0.3, 0.3)),
        False,
    ),
    "NaN": (peaks(9, (3, 0.9, 0.9)), peaks(9, (3, NAN, NAN)), True),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_to_a_question_has_changed_if_its_text_or_its_score_has(case):
    expected, got, changed = ANSWERS[case]
    assert answer_changed(expected, got, longest=15) is changed


def test_generated_texts_are_compared_up_to_the_first_other_token():
    first, second, other = [4.0, 0.0, 0.9, 1.0], [5.0, 1.0, 0.0, 0.0], [6.0, 0.0, 1.0, 0.0]
    one = torch.tensor([first, second])
    assert not generation_changed(one, one, exact=True)
    # The second token is another one by logits of the same direction: a close call, and what follows differs.
    near = torch.tensor([[3.0, 0.0, 0.95, 0.95], other])
    assert not generation_changed(one, near, exact=False)
    assert generation_changed(one, torch.tensor([first, other]), exact=False)


def test_the_greatest_difference_of_all_texts_is_told():
    one = torch.tensor([1.0, 0.0])
    difference = compare([one, one], [one * 1.01, torch.tensor([1.0, 0.5])], direction_changed)
    assert (difference.texts, difference.changed) == (2, 1)
    assert difference.greatest == pytest.approx(0.5)


def test_layers_that_answer_differently_give_way_to_transformers_own(tmp_path, monkeypatch):
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")
    right = asking.right_answers(architectures.auto_class(CLASSIFY), CLASSIFY, folder)

    def spoiled(model, *, fills, own=prepare.unpad):
        own(model, fills=fills)
        model.bert.encoder.layers.layers[0].norm.weight.data.mul_(0.5)

    monkeypatch.setattr(prepare, "unpad", spoiled)
    model = task_class(CLASSIFY)(folder, "float32")
    proof = model.description["proof"]
    assert proof["step"] == "float32, transformers' layers with oneDNN, mixed lengths"
    assert proof["because"][0].startswith("float32, own layers, mixed lengths: ")
    for got, wanted in zip(asking.predictions(model, CLASSIFY), right, strict=True):
        assert got["score"] == pytest.approx(float(wanted.max()), abs=1e-4)


def test_layers_that_are_wrong_only_far_behind_in_a_text_give_way(tmp_path, monkeypatch):
    """As positions are that a shorter dtype has rounded; short texts do not show it."""
    sizes = {"max_position_embeddings": 256, "num_labels": 3}
    model = transformers.BertForSequenceClassification(architectures.config_of("bert", **sizes))
    architectures.spread(model)
    model.save_pretrained(tmp_path)
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_max_length = 256
    tokenizer.save_pretrained(tmp_path)

    def spoiled(model, *, fills, own=prepare.unpad):
        own(model, fills=fills)
        model.bert.embeddings.position_embeddings.weight.data[200:].neg_()

    monkeypatch.setattr(prepare, "unpad", spoiled)
    proof = task_class(CLASSIFY)(tmp_path, "float32").description["proof"]
    assert proof["because"][0].startswith("float32, own layers, mixed lengths: 2 of 18 answers differ")


def test_layers_that_fail_give_way_and_the_reason_is_the_exceptions(tmp_path, monkeypatch):
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")

    def failing(model):
        raise RuntimeError(f"no such\nkernel for {folder}/model.safetensors")

    monkeypatch.setattr(prepare, "use_kernels", failing)
    proof = task_class(CLASSIFY)(folder, "float32").description["proof"]
    assert proof["step"] == "float32, transformers' layers, mixed lengths"
    # Clients read the reasons, and no path.
    reason = "RuntimeError: no such kernel for the folder/model.safetensors"
    assert proof["because"] == [
        f"float32, own layers, mixed lengths: {reason}",
        f"float32, transformers' layers with oneDNN, mixed lengths: {reason}",
    ]


@pytest.mark.parametrize("name", ["convbert", "fnet"])
def test_texts_that_change_each_other_are_served_at_equal_lengths(name, tmp_path):
    folder = architectures.write(name, CLASSIFY, tmp_path / "model")
    model = task_class(CLASSIFY)(folder, "float32")
    proof = model.description["proof"]
    assert proof["step"] == "float32, transformers' layers with oneDNN, equal lengths"
    assert "in a batch change each other's answers" in proof["because"][0]


def test_a_model_that_never_answers_twice_alike_is_refused(tmp_path, monkeypatch):
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")
    forward = transformers.BertForSequenceClassification.forward

    def noisy(self, *arguments, **options):
        output = forward(self, *arguments, **options)
        output.logits = output.logits + torch.randn_like(output.logits)
        return output

    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", noisy)
    with pytest.raises(ModelLoadError, match="cannot be served with right answers: float32, "):
        task_class(CLASSIFY)(folder, "float32")


@pytest.mark.parametrize("name", ["modernbert", "llama", "nomic_bert"])
def test_rotary_positions_stay_right_in_half_a_dtype(name, tmp_path):
    """Cosines of rounded frequencies are wrong for the later positions."""
    folder = architectures.write(name, CLASSIFY, tmp_path / "model")
    model = task_class(CLASSIFY)(folder, "bfloat16")
    rotary = {
        each_name: buffer.dtype
        for each_name, buffer in model._pretrained.model.named_buffers()
        if "inv_freq" in each_name
    }
    assert rotary
    assert set(rotary.values()) == {torch.float32}


def test_a_second_replica_takes_the_same_step_without_a_proof(tmp_path, monkeypatch):
    folder = architectures.write("convbert", CLASSIFY, tmp_path / "model")
    first = task_class(CLASSIFY)(folder, "float32")
    assert first.proof_seconds > 0

    def never(*arguments, **options):
        raise AssertionError("the model was proved again")

    monkeypatch.setattr(prepare, "Rehearsal", never)
    second = task_class(CLASSIFY)(folder, "float32")
    assert second.proof_seconds == 0
    assert second.description == first.description
    assert asking.predictions(second, CLASSIFY) == asking.predictions(first, CLASSIFY)
    # Other weights are another model.
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.zeros_(next(model.parameters()))
    model.save_pretrained(folder)
    with pytest.raises(ModelLoadError, match="proved again"):
        task_class(CLASSIFY)(folder, "float32")


def test_a_model_that_fails_on_each_text_is_refused_with_its_own_words(tmp_path, monkeypatch):
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")

    def failing(*arguments, **options):
        raise ValueError("this model\nneeds two texts")

    monkeypatch.setattr(transformers.BertForSequenceClassification, "forward", failing)
    with pytest.raises(
        ModelLoadError, match="the model fails on a text: ValueError: this model needs two texts"
    ):
        task_class(CLASSIFY)(folder, "float32")


@pytest.fixture
def loads(monkeypatch):
    """What is loaded: the dtype, a weak reference to the model, and the dtypes in memory at that time."""
    found = []
    load = prepare.load

    def seen(auto_class, folder, dtype, **options):
        others = [each for each, model, _ in found if model() is not None]
        loaded = load(auto_class, folder, dtype, **options)
        found.append((dtype, weakref.ref(loaded.model), others))
        return loaded

    monkeypatch.setattr(prepare, "load", seen)
    # pytest keeps each record, and with its error the frames that hold a model.
    monkeypatch.setattr(prepare.logger, "disabled", True)
    return found


@pytest.mark.parametrize("asked", ["bfloat16", "float16", "auto"])
def test_a_large_model_is_loaded_in_the_shorter_dtype_alone(asked, tmp_path, monkeypatch, loads):
    """`auto` stands for bfloat16 on accelerators, and on some processors."""
    wanted = "bfloat16" if asked == "auto" else asked
    monkeypatch.setattr(prepare, "resolve_dtype", lambda *arguments, **options: wanted)
    monkeypatch.setattr(prepare, "_TOO_LARGE", 10)
    folder = architectures.write("modernbert", CLASSIFY, tmp_path / "model")
    description = task_class(CLASSIFY)(folder, asked).description
    assert [dtype for dtype, *_ in loads] == [wanted]
    assert description["dtype"] == wanted
    assert description["proof"]["compared_with"] == wanted


def test_a_large_model_with_infinite_numbers_is_refused_without_float32(tmp_path, monkeypatch, loads):
    monkeypatch.setattr(prepare, "_TOO_LARGE", 10)
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    torch.nn.init.constant_(model.classifier.bias, 1e6)
    model.save_pretrained(folder)
    with pytest.raises(ModelLoadError, match="NotFiniteError"):
        task_class(CLASSIFY)(folder, "float16")
    assert [dtype for dtype, *_ in loads] == ["float16"]


@pytest.mark.parametrize("task", tiny_models.MAKERS)
def test_a_model_is_let_go_before_another_one_is_loaded(task, tmp_path, monkeypatch, loads):
    folder = tiny_models.write(task, tmp_path / "model")

    def failing(model):
        raise RuntimeError("no kernels")

    # Steps fail, so that each dtype is loaded more than once.
    monkeypatch.setattr(prepare, "use_kernels", failing)
    description = task_class(task)(folder, "bfloat16").description
    assert description["proof"]["compared_with"] == "float32"
    assert [dtype for dtype, *_ in loads][:3] == ["float32", "bfloat16", "bfloat16"]
    assert [others for *_, others in loads] == [[] for _ in loads]


def test_a_model_in_steps_is_let_go_with_its_cache_before_another_one_is_loaded(tmp_path, monkeypatch, loads):
    caches = weakref.WeakSet()
    make = KeyValueCache.__init__

    def made(cache, *arguments):
        make(cache, *arguments)
        caches.add(cache)

    def spoiled(steps, continuations):
        assert list(caches) == [steps._cache]
        raise RuntimeError("no answer")

    monkeypatch.setattr(KeyValueCache, "__init__", made)
    monkeypatch.setattr("serve_app.decoders.steps.DecoderSteps.generated", spoiled)
    folder = architectures.write("llama", Task.TEXT_GENERATION, tmp_path / "model")
    description = task_class(Task.TEXT_GENERATION)(folder, "bfloat16").description
    assert description["batching"] == "whole batches"
    assert [others for *_, others in loads] == [[] for _ in loads]
    assert not caches
