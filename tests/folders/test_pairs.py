"""Models that read two texts together answer as sentence-transformers and transformers do."""

import json

import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder

from serve_app.contract import Task
from serve_app.engine.base import InputLimit, ModelLoadError, TextPair
from serve_app.http.errors import InputTooLongError
from serve_app.loading.tokenizer import Tokenizer
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.serve import tiny_models

QUERY = "who was in london ?"
LONG = " ".join(asking.TEXTS * 40)


def pair_model(folder, name="bert", labels=1):
    """Write a model that scores pairs, with random weights."""
    torch.manual_seed(11)
    config = architectures.config_of(name)
    config.num_labels = labels
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    architectures.spread(model)
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


def state(folder, file, **members):
    path = folder / file
    document = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(document | members))


def saved_by_cross_encoder(folder):
    CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity()).save_pretrained(str(folder))


IDENTITY = "torch.nn.modules.linear.Identity"
STATEMENTS = {
    "nothing": lambda folder: None,
    "in-config": lambda folder: state(
        folder, "config.json", sentence_transformers={"activation_fn": IDENTITY}
    ),
    "as-before-4": lambda folder: state(folder, "config.json", sbert_ce_default_activation_function=IDENTITY),
    "saved-by-6": saved_by_cross_encoder,
}


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert", "deberta-v2", "qwen3"])
def test_scores_are_those_of_the_cross_encoder(tmp_path, name):
    folder = pair_model(tmp_path, name)
    expected = CrossEncoder(str(folder), device="cpu").predict([(QUERY, text) for text in asking.TEXTS])
    model = task_class(Task.TEXT_RANKING)(folder, "float32")
    pairs = [TextPair(QUERY, text) for text in asking.TEXTS]
    for alone in (True, False):
        got = asking.predictions(model, Task.TEXT_RANKING, pairs, alone=alone)
        assert [each["score"] for each in got] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_function_of_the_score_is_the_folder_s(tmp_path, statement):
    folder = pair_model(tmp_path)
    STATEMENTS[statement](folder)
    encoder = CrossEncoder(str(folder), device="cpu")
    pairs = [(QUERY, text) for text in asking.TEXTS]
    model = task_class(Task.TEXT_RANKING)(folder, "float32")
    inputs = [TextPair(*pair) for pair in pairs]
    for parameters, function in (
        ({}, None),
        ({"function_to_apply": "none"}, torch.nn.Identity()),
        ({"function_to_apply": "sigmoid"}, torch.nn.Sigmoid()),
    ):
        expected = encoder.predict(pairs, activation_fn=function).tolist()
        got = asking.predictions(model, Task.TEXT_RANKING, inputs, **parameters)
        assert [each["score"] for each in got] == pytest.approx(expected, abs=1e-4)


def test_what_a_ranker_s_folder_states_beyond_that_is_refused_by_name(tmp_path):
    for number, (file, members, cause) in enumerate(
        (
            ("config.json", {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "'torch.nn.Tanh'"),
            ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "'query'"),
        )
    ):
        folder = pair_model(tmp_path / str(number))
        state(folder, file, **members)
        with pytest.raises(ModelLoadError, match=cause):
            task_class(Task.TEXT_RANKING)(folder, "float32")
    folder = pair_model(tmp_path / "modules")
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    listed.append({"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ModelLoadError, match=r"models\.Dense; a ranker can be served if"):
        task_class(Task.TEXT_RANKING)(folder, "float32")


def test_a_head_of_several_labels_is_no_ranker(tmp_path):
    with pytest.raises(ModelLoadError, match="has 3 labels; text-ranking needs a model with one"):
        task_class(Task.TEXT_RANKING)(pair_model(tmp_path, labels=3), "float32")


def test_pairs_are_classified_as_transformers_does_it(tmp_path):
    folder = pair_model(tmp_path, labels=3)
    pairs = [(QUERY, text) for text in (*asking.TEXTS, LONG)] + [(LONG, QUERY), (LONG, LONG)]
    pipeline = transformers.pipeline("text-classification", model=str(folder), dtype="float32", device="cpu")
    expected = pipeline(
        [{"text": first, "text_pair": second} for first, second in pairs], truncation=True, max_length=64
    )
    model = task_class(Task.TEXT_CLASSIFICATION)(folder, "float32")
    parameters = parse_parameters(Task.TEXT_CLASSIFICATION, {})
    limit = InputLimit(64, truncate=True)
    for pair, right in zip(pairs, expected, strict=True):
        encoded = model.encode(TextPair(*pair), parameters, limit)
        got = model.decode("", encoded, model.forward(encoded, asking.Waiting((), 0)), parameters)
        assert got["label"] == right["label"]
        assert got["score"] == pytest.approx(right["score"], abs=1e-4)


@pytest.mark.parametrize("cut", ["first", "second", "longest"])
@pytest.mark.parametrize("max_tokens", [24, 25])
def test_a_pair_is_cut_where_it_is_said(cut, max_tokens):
    tokenizer = tiny_models.tokenizer()
    way = {"first": "only_first", "second": "only_second", "longest": "longest_first"}[cut]
    for first, second in ((QUERY, LONG), (LONG, QUERY), (LONG, LONG)):
        if cut != "longest" and {"first": second, "second": first}[cut] is LONG:
            with pytest.raises(InputTooLongError):
                Tokenizer(tokenizer).encode(first, InputLimit(max_tokens, truncate=True), second, cut)
            continue
        got = Tokenizer(tokenizer).encode(first, InputLimit(max_tokens, truncate=True), second, cut)
        right = tokenizer(first, second, truncation=way, max_length=max_tokens)
        assert got["input_ids"] == right["input_ids"]
        assert got["token_type_ids"] == right["token_type_ids"]
