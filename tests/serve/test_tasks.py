"""Each task against transformers' own pipeline, on a tiny model, one by one and in one batch."""

import asyncio
import json
from pathlib import Path

import pytest
import torch
import transformers

from serve_app.contract import ModelArgs, Task, UserConfig
from serve_app.engine.base import InputLimit, ModelLoadError
from serve_app.engine.batch_engine import BatchEngine
from serve_app.http.errors import InputTooLongError, InvalidInputError
from serve_app.tasks import task_class
from tests.serve import tiny_models

TEXTS = [
    "ada wrote this in london .",
    "a great goal !",
    "this example is bad , the goal was scored in paris and the a was good good good",
    "the",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[Task, Path]:
    root = tmp_path_factory.mktemp("models")
    return {task: tiny_models.write(task, root / task.value) for task in Task}


def answer(task: Task, folder: Path, texts: list[str], **parameters) -> list[dict]:
    async def ask() -> list[dict]:
        args = ModelArgs(name="tiny", uri=f"file://{folder}", task=task)
        engine = BatchEngine(args, task_class(task)(folder, "float32"), UserConfig())
        try:
            await engine.warm_up()
            return await engine.predict(texts, parameters)
        finally:
            await engine.close()

    return asyncio.run(ask())


def pipeline(task: str, folder: Path):
    return transformers.pipeline(task, model=str(folder))


def close(value: float):
    return pytest.approx(value, abs=1e-4)


def test_text_classification_answers_like_the_pipeline(folders):
    folder = folders[Task.TEXT_CLASSIFICATION]
    expected = pipeline("text-classification", folder)(TEXTS)
    answers = answer(Task.TEXT_CLASSIFICATION, folder, TEXTS)
    assert answers == [{"label": item["label"], "score": close(item["score"])} for item in expected]


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_text_classification_ranks_the_best_labels(folders, function):
    folder = folders[Task.TEXT_CLASSIFICATION]
    expected = pipeline("text-classification", folder)(TEXTS, top_k=2, function_to_apply=function)
    answers = answer(Task.TEXT_CLASSIFICATION, folder, TEXTS, top_k=2, function_to_apply=function)
    for got, wanted in zip(answers, expected, strict=True):
        assert got["top"] == [{"label": item["label"], "score": close(item["score"])} for item in wanted]


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification_answers_like_the_pipeline(folders, strategy):
    folder = folders[Task.TOKEN_CLASSIFICATION]
    expected = pipeline("token-classification", folder)(TEXTS, aggregation_strategy=strategy)
    answers = answer(Task.TOKEN_CLASSIFICATION, folder, TEXTS, aggregation_strategy=strategy)
    for got, wanted in zip(answers, expected, strict=True):
        assert len(got["entities"]) == len(wanted)
        for entity, other in zip(got["entities"], wanted, strict=True):
            assert entity == {**other, "score": close(float(other["score"]))}


@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot_classification_answers_like_the_pipeline(folders, multi_label):
    folder, labels = folders[Task.ZERO_SHOT_CLASSIFICATION], ["sports", "politics", "london"]
    expected = pipeline("zero-shot-classification", folder)(
        TEXTS, candidate_labels=labels, multi_label=multi_label
    )
    answers = answer(
        Task.ZERO_SHOT_CLASSIFICATION, folder, TEXTS, candidate_labels=labels, multi_label=multi_label
    )
    for got, wanted in zip(answers, expected, strict=True):
        assert got == {"labels": wanted["labels"], "scores": [close(score) for score in wanted["scores"]]}


def test_zero_shot_classification_needs_labels(folders):
    with pytest.raises(InvalidInputError, match="candidate_labels: at least one"):
        answer(Task.ZERO_SHOT_CLASSIFICATION, folders[Task.ZERO_SHOT_CLASSIFICATION], TEXTS)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_feature_extraction_pools_the_pipelines_token_vectors(folders, pooling):
    folder = folders[Task.FEATURE_EXTRACTION]
    tokens = [torch.tensor(item[0]) for item in pipeline("feature-extraction", folder)(TEXTS)]
    reduce = {"mean": lambda t: t.mean(0), "cls": lambda t: t[0], "max": lambda t: t.max(0).values}[pooling]
    answers = answer(Task.FEATURE_EXTRACTION, folder, TEXTS, pooling=pooling)
    for got, vectors in zip(answers, tokens, strict=True):
        assert got["embedding"] == pytest.approx(reduce(vectors).tolist(), abs=1e-4)


def test_feature_extraction_normalizes_on_request(folders):
    answers = answer(Task.FEATURE_EXTRACTION, folders[Task.FEATURE_EXTRACTION], TEXTS, normalize=True)
    for got in answers:
        assert torch.tensor(got["embedding"]).norm() == close(1.0)


def test_fill_mask_answers_like_the_pipeline(folders):
    folder = folders[Task.FILL_MASK]
    texts = ["ada [MASK] this in london .", "the [MASK]"]
    expected = pipeline("fill-mask", folder)(texts, top_k=3)
    answers = answer(Task.FILL_MASK, folder, texts, top_k=3)
    for got, wanted in zip(answers, expected, strict=True):
        assert [fill["token"] for fill in got["fills"]] == [item["token_str"] for item in wanted]
        assert [fill["sequence"] for fill in got["fills"]] == [item["sequence"] for item in wanted]
        assert [fill["score"] for fill in got["fills"]] == [close(item["score"]) for item in wanted]


def test_fill_mask_fills_each_of_several_masks(folders):
    got = answer(Task.FILL_MASK, folders[Task.FILL_MASK], ["[MASK] wrote [MASK]"], top_k=2)[0]["fills"]
    assert [fill["mask"] for fill in got] == [0, 0, 1, 1]
    assert all("[MASK]" in fill["sequence"] for fill in got)


def test_fill_mask_has_a_limit_of_fills(folders):
    with pytest.raises(InvalidInputError, match="got 70, for 20 masks; one text has at most 1000 fills"):
        answer(Task.FILL_MASK, folders[Task.FILL_MASK], ["[MASK] " * 20], top_k=70)


def test_fill_mask_needs_a_mask(folders):
    with pytest.raises(InvalidInputError, match=r"no \[MASK\]"):
        answer(Task.FILL_MASK, folders[Task.FILL_MASK], ["the goal"])


def test_text_generation_continues_like_the_pipeline(folders):
    folder = folders[Task.TEXT_GENERATION]
    generate = pipeline("text-generation", folder)
    for text in TEXTS:
        expected = generate(text, max_new_tokens=8, do_sample=False, return_full_text=False)
        got = answer(Task.TEXT_GENERATION, folder, [text], max_new_tokens=8)
        assert got == [{"generated_text": expected[0]["generated_text"]}]


def test_text_generation_gives_each_text_of_a_batch_its_own_answer(folders):
    folder = folders[Task.TEXT_GENERATION]
    together = answer(Task.TEXT_GENERATION, folder, TEXTS, max_new_tokens=8)
    apart = [answer(Task.TEXT_GENERATION, folder, [text], max_new_tokens=8)[0] for text in TEXTS]
    assert together == apart


def test_text_generation_can_return_the_prompt_too(folders):
    got = answer(
        Task.TEXT_GENERATION,
        folders[Task.TEXT_GENERATION],
        ["the goal"],
        max_new_tokens=4,
        return_full_text=True,
    )
    assert got[0]["generated_text"].startswith("the goal")


def test_text_generation_refuses_more_than_the_model_can_hold(folders):
    with pytest.raises(InputTooLongError, match=f"together may have {tiny_models.MAX_TOKENS}"):
        answer(Task.TEXT_GENERATION, folders[Task.TEXT_GENERATION], ["a"], max_new_tokens=500)


@pytest.mark.parametrize("beams", [1, 2])
def test_text2text_generation_answers_like_generate(folders, beams):
    folder = folders[Task.TEXT2TEXT_GENERATION]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    got = answer(Task.TEXT2TEXT_GENERATION, folder, TEXTS, max_new_tokens=6, num_beams=beams, prefix="good ")
    for text, prediction in zip(TEXTS, got, strict=True):
        inputs = tokenizer(f"good {text}", return_tensors="pt", return_token_type_ids=False)
        expected = model.generate(**inputs, max_new_tokens=6, num_beams=beams, do_sample=False)
        assert prediction["generated_text"]
        assert prediction == {"generated_text": tokenizer.decode(expected[0], skip_special_tokens=True)}


def summaries(folder: Path, prefix: str, **options) -> list[dict]:
    """Return what the pipeline of transformers 4 answers, which transformers 5 no longer has."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    found = []
    for text in TEXTS:
        inputs = tokenizer(prefix + text, return_tensors="pt", return_token_type_ids=False)
        generated = model.generate(**inputs, **options)
        found.append({"summary_text": tokenizer.decode(generated[0], skip_special_tokens=True)})
    assert all(summary["summary_text"] for summary in found)
    return found


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prefix": "good "},
        {"prefix": ""},
        {"num_beams": 1},
        {"min_length": 0, "max_length": 5},
        {"min_length": 9, "max_length": 20, "length_penalty": -2.0, "early_stopping": False},
        {"no_repeat_ngram_size": 0},
        {"max_new_tokens": 7},
    ],
    ids=str,
)
def test_summarization_answers_as_the_model_states_unless_the_request_says_otherwise(folders, given):
    folder = folders[Task.SUMMARIZATION]
    options = {**tiny_models.STATED, **given}
    if "max_new_tokens" in given:
        del options["max_length"]
    assert answer(Task.SUMMARIZATION, folder, TEXTS, **given) == summaries(folder, **options)


def test_translation_answers_as_the_model_states(folders):
    """tests/folders/test_translation.py has all kinds of languages."""
    expected = summaries(folders[Task.TRANSLATION], **tiny_models.STATED)
    got = answer(Task.TRANSLATION, folders[Task.TRANSLATION], TEXTS, src_lang="en", tgt_lang="de")
    assert got == [{"translation_text": each["summary_text"]} for each in expected]


def test_summarization_with_a_model_that_states_nothing_has_the_defaults_of_text2text_generation(folders):
    folder = folders[Task.TEXT2TEXT_GENERATION]
    assert answer(Task.SUMMARIZATION, folder, TEXTS) == summaries(folder, "", max_new_tokens=64)
    short = summaries(folder, "", max_length=5)
    assert answer(Task.SUMMARIZATION, folder, TEXTS, max_length=5) == short


def test_summarization_takes_what_the_model_states_for_every_task(tmp_path):
    folder = tiny_models.write(Task.TEXT2TEXT_GENERATION, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"prefix": "good "}))
    generation = json.loads((folder / "generation_config.json").read_text())
    stated = {"min_length": 9, "max_length": 11}
    (folder / "generation_config.json").write_text(json.dumps(generation | stated))
    assert answer(Task.SUMMARIZATION, folder, TEXTS) == summaries(folder, "good ", **stated)


def test_summaries_with_different_parameters_do_not_share_a_batch(folders):
    model = task_class(Task.SUMMARIZATION)(folders[Task.SUMMARIZATION], "float32")
    limit = InputLimit(60, truncate=False)
    # The value is text2text-generation's default, but not what the model states.
    [stated], [given] = (
        model.encode("the goal", _parameters(Task.SUMMARIZATION, **given), limit)
        for given in ({}, {"num_beams": 1})
    )
    assert stated.group != given.group


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"num_beams": "four"}, "task_specific_params.summarization: parameters.num_beams: got 'four'"),
        (["min_length"], "task_specific_params.summarization: got "),
    ],
)
def test_summarization_refuses_a_model_that_states_nonsense(tmp_path, stated, reason):
    with pytest.raises(ModelLoadError, match=reason):
        task_class(Task.SUMMARIZATION)(stating(tmp_path, stated), "auto")


def test_a_model_may_state_what_a_manifest_cannot(tmp_path):
    model = task_class(Task.SUMMARIZATION)(stating(tmp_path, {"early_stopping": "never"}), "auto")
    assert model._pretrained.model.generation_config.early_stopping == "never"


def stating(path, parameters):
    """Return the folder of a model that states the parameters."""
    folder = tiny_models.write(Task.SUMMARIZATION, path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["task_specific_params"] = {"summarization": parameters}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_long_text_is_refused_with_its_length_and_the_limit(folders):
    with pytest.raises(InputTooLongError) as caught:
        answer(Task.TEXT_CLASSIFICATION, folders[Task.TEXT_CLASSIFICATION], ["goal " * 100])
    assert caught.value.details == {"length": 102, "limit": tiny_models.MAX_TOKENS}


def test_a_long_text_is_cut_where_the_endpoint_says_so(folders):
    model = task_class(Task.TEXT_CLASSIFICATION)(folders[Task.TEXT_CLASSIFICATION], "auto")
    encoded = model.encode(
        "goal " * 100, _parameters(Task.TEXT_CLASSIFICATION), InputLimit(10, truncate=True)
    )
    ids = encoded[0].features["input_ids"]
    assert len(ids) == 10
    assert ids[-1] == tiny_models.tokenizer().sep_token_id


def _parameters(task: Task, **given):
    from serve_app.parameters import parse_parameters

    return parse_parameters(task, given)


@pytest.mark.parametrize(
    ("made_for", "served_as", "reason"),
    [
        (Task.FEATURE_EXTRACTION, Task.TEXT_CLASSIFICATION, "its weights lack classifier"),
        (Task.TEXT_CLASSIFICATION, Task.ZERO_SHOT_CLASSIFICATION, "no label 'entailment'"),
        (Task.TEXT_CLASSIFICATION, Task.TEXT2TEXT_GENERATION, "cannot be loaded for text2text-generation"),
        (Task.TEXT_CLASSIFICATION, Task.SUMMARIZATION, "BertForSequenceClassification is no encoder-decoder"),
        (Task.TEXT_GENERATION, Task.SUMMARIZATION, "GPT2LMHeadModel is no encoder-decoder"),
    ],
)
def test_a_model_for_another_task_is_refused(folders, made_for, served_as, reason):
    with pytest.raises(ModelLoadError, match=reason):
        task_class(served_as)(folders[made_for], "auto")


def test_corrupt_weights_are_refused(tmp_path):
    folder = tiny_models.write(Task.FILL_MASK, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="not readable safetensors"):
        task_class(Task.FILL_MASK)(folder, "auto")


def test_pickled_weights_are_refused(tmp_path):
    folder = tiny_models.write(Task.FILL_MASK, tmp_path / "model")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"no \*\.safetensors file"):
        task_class(Task.FILL_MASK)(folder, "auto")


def test_code_in_the_folder_is_not_run(tmp_path):
    folder = tiny_models.write(Task.TEXT_CLASSIFICATION, tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelLoadError):
        task_class(Task.TEXT_CLASSIFICATION)(folder, "auto")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("task", "exclusive", "threads"),
    [
        (Task.TEXT2TEXT_GENERATION, True, 3),
        (Task.TEXT_CLASSIFICATION, True, 3),
        (Task.TEXT_CLASSIFICATION, False, 1),
    ],
    ids=["one batch at a time", "exclusive", "shared"],
)
def test_a_batch_has_all_threads_unless_others_run_beside_it(folders, monkeypatch, task, exclusive, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = torch.get_num_threads()
    model = task_class(task)(folders[task], "float32")
    try:
        model.prepare_thread(exclusive)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
