"""Question answering against the pipeline of transformers 4.57, by what pipeline_answers.py has written."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serve_app.contract import Task
from serve_app.engine.base import InputLimit, ModelLoadError, TextPair
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from serve_app.tasks.parts.spans import best_spans
from tests.folders import architectures, asking, pipeline_answers, readers, translators
from tests.serve import tiny_models

ANSWER = Task.QUESTION_ANSWERING
GOLDEN = json.loads(pipeline_answers.FILE.read_text(encoding="utf-8"))
QUESTION, LONG = pipeline_answers.QUESTIONS[0], pipeline_answers.LONG


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("readers")
    return {kind: task_class(ANSWER)(readers.write(kind, root / kind), "float32") for kind in readers.MODELS}


def answered(model, pairs, *, alone=False, max_tokens=None, **parameters):
    """Return the prediction for each pair, of windows in one batch or alone."""
    parsed = parse_parameters(ANSWER, parameters)
    limit = InputLimit(max_tokens or model.max_tokens, truncate=False)
    encoded = [model.encode(pair, parsed, limit) for pair in pairs]
    windows = [window for of_pair in encoded for window in of_pair]
    batches = [[each] for each in windows] if alone else [windows]
    outputs = iter([output for batch in batches for output in model.forward(batch, asking.Waiting((), 0))])
    return [
        model.decode(pair, of_pair, [next(outputs) for _ in of_pair], parsed)
        for pair, of_pair in zip(pairs, encoded, strict=True)
    ]


def shown(answers, tolerance):
    return [{**each, "score": pytest.approx(each["score"], abs=tolerance)} for each in answers]


def test_there_are_many_cases_of_all_kinds():
    assert len(GOLDEN["answers"]) > 100
    assert {case["kind"] for case in GOLDEN["answers"]} == {*readers.MODELS}
    answers = [answer for case in GOLDEN["answers"] for answer in case["answers"]]
    assert any(answer["answer"] == "" for answer in answers)
    assert any(any(ord(letter) > 0x3000 for letter in answer["answer"]) for answer in answers)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "together"])
@pytest.mark.parametrize("kind", readers.MODELS)
def test_answers_are_those_of_the_pipeline(models, kind, alone):
    cases = [case for case in GOLDEN["answers"] if case["kind"] == kind]
    for case in cases:
        pairs = [TextPair(case["question"], case["context"]), TextPair("good ?", "the goal was bad")]
        given = {"top_k": 1, **case["parameters"]}
        got = answered(models[kind], pairs, alone=alone, **given)[0]
        assert got["answers"] == shown(case["answers"], 1e-5), case
        assert {name: got[name] for name in got if name != "answers"} == got["answers"][0]


def test_without_top_k_there_is_one_answer(models):
    [one] = answered(models["words"], [TextPair(QUESTION, LONG)])
    [several] = answered(models["words"], [TextPair(QUESTION, LONG)], top_k=1)
    assert several == {**one, "answers": [one]}


@pytest.mark.parametrize("case", GOLDEN["spans"], ids=lambda case: f"{len(case['allowed'])}-{case['count']}")
def test_spans_are_those_of_the_pipeline(case):
    logits = np.asarray(case["logits"], dtype=np.float32)
    found = best_spans(logits, np.asarray(case["allowed"]), case["count"], case["longest"])
    assert found.null_score == pytest.approx(case["null_score"], rel=1e-6)
    wanted = [(start, end, pytest.approx(score, rel=1e-6)) for start, end, score in case["spans"] if score]
    got = list(zip(found.starts, found.ends, found.scores, strict=True))
    assert [each for each in got if each[2]] == wanted


def test_a_context_of_no_tokens_has_no_answer(models):
    [got] = answered(models["words"], [TextPair(QUESTION, "\u200b\u0301")], top_k=3)
    nothing = {"answer": "", "score": 0.0, "start": 0, "end": 0}
    assert {name: got[name] for name in nothing} == nothing


@pytest.mark.parametrize(
    ("question", "parameters", "reason"),
    [
        (QUESTION, {"max_seq_len": 100}, "max_seq_len: got 100; this endpoint takes 64 tokens"),
        (QUESTION, {"doc_stride": 60}, "doc_stride: got 60; beside this question, a window has 55 tokens"),
        ("goal " * 70, {}, "the question leaves no room for the context in a window of 64 tokens"),
    ],
)
def test_what_fits_no_window_is_refused(models, question, parameters, reason):
    ask = [TextPair(question, LONG)]
    with pytest.raises(InvalidInputError, match=reason):
        answered(models["words"], ask, **parameters)


def test_windows_that_are_too_many_are_refused_before_they_are_made(models):
    with pytest.raises(InvalidInputError, match="the context becomes .* windows of 64 tokens"):
        answered(models["words"], [TextPair("good ?", "goal " * 100_000)], doc_stride=57)


def test_windows_are_no_longer_than_the_endpoint_takes(models):
    limit = InputLimit(30, truncate=False)
    windows = models["words"].encode(TextPair("good ?", LONG), parse_parameters(ANSWER, {}), limit)
    assert len(windows) > 3
    assert max(window.length for window in windows) == 30


def test_threads_with_windows_of_different_sizes_do_not_disturb_each_other(models):
    limit = InputLimit(64, truncate=False)

    def lengths(size):
        parameters = parse_parameters(ANSWER, {"max_seq_len": size, "doc_stride": 2})
        return {
            max(
                window.length
                for window in models["words"].encode(TextPair("good ?", LONG), parameters, limit)
            )
            for _ in range(50)
        }

    sizes = [20, 30, 40, 64] * 2
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lengths, sizes)) == [{size} for size in sizes]


def test_texts_that_change_each_other_are_answered_at_equal_lengths(tmp_path):
    folder = architectures.write("fnet", ANSWER, tmp_path / "model")
    model = task_class(ANSWER)(folder, "float32")
    assert model.description["proof"]["step"].endswith("equal lengths")
    parameters, limit = parse_parameters(ANSWER, {"max_seq_len": 40}), InputLimit(64, truncate=False)
    windows = model.encode(TextPair("good ?", LONG), parameters, limit)
    assert {window.group for window in windows} == {(window.length, None) for window in windows}


def test_longformer_knows_the_question_by_its_separators(tmp_path):
    folder = readers.write("bytes", tmp_path / "model", "longformer")
    model = task_class(ANSWER)(folder, "float32")
    pairs = [TextPair(QUESTION, text) for text in ("Ada wrote this.", "The goal was bad, Ada.", LONG)]
    alone = answered(model, pairs, alone=True, top_k=2)
    for got, wanted in zip(answered(model, pairs, top_k=2), alone, strict=True):
        assert got["answers"] == shown(wanted["answers"], 1e-4)


def test_a_tokenizer_without_places_of_tokens_is_refused(tmp_path):
    translators.write("m2m_100", tmp_path / "other")
    readers.write("words", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    for name in ("vocab.json", "sentencepiece.bpe.model", "tokenizer_config.json", "added_tokens.json"):
        (tmp_path / "model" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(ModelLoadError, match=r"has no tokenizer.json, which question-answering needs"):
        task_class(ANSWER)(tmp_path / "model", "float32")


def test_a_model_without_a_head_for_answers_is_refused(tmp_path):
    folder = tiny_models.write(Task.TEXT_CLASSIFICATION, tmp_path / "model")
    with pytest.raises(ModelLoadError, match="its weights lack qa_outputs"):
        task_class(ANSWER)(folder, "float32")


def test_the_proof_compares_probabilities_of_starts_and_ends(models):
    proof = models["words"].description["proof"]
    assert proof["step"] == "float32, own layers, mixed lengths"
    assert proof["texts"] == 18
    # On some processors, both kinds of layers round alike.
    assert 0 <= proof["greatest_difference"] < 1e-3


def test_half_a_dtype_is_kept_if_only_what_nobody_sees_differs(tmp_path):
    """Of two starts that are about as likely, either may be the higher one while the answer stays."""
    folder = tiny_models.write(ANSWER, tmp_path / "model")
    description = task_class(ANSWER)(folder, "bfloat16").description
    assert description["dtype"] == "bfloat16", description["proof"]["because"]
    exact = task_class(ANSWER)(folder, "float32")
    pairs = [TextPair(QUESTION, LONG), TextPair("good ?", "the goal was bad")]
    short = answered(task_class(ANSWER)(folder, "bfloat16"), pairs)
    for got, wanted in zip(short, answered(exact, pairs), strict=True):
        assert got["score"] == pytest.approx(wanted["score"], abs=0.1)
