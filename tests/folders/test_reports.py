"""Folders of public bug reports, each with the right answer or the refusal."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import Whitespace

from serve_app.contract import Task
from serve_app.engine.base import InputLimit, ModelLoadError
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import parse_parameters
from serve_app.tasks import task_class
from serve_app.tasks.pretrained_task import NotFiniteError
from tests.folders import architectures, asking
from tests.serve import tiny_models

CLASSIFY, FEATURES, GENERATE = Task.TEXT_CLASSIFICATION, Task.FEATURE_EXTRACTION, Task.TEXT_GENERATION
REWRITE, ZERO_SHOT = Task.TEXT2TEXT_GENERATION, Task.ZERO_SHOT_CLASSIFICATION


def change(folder, name="config.json", **members):
    """Change members of a JSON file; None removes one."""
    path = folder / name
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    document = {key: value for key, value in {**document, **members}.items() if value is not None}
    path.write_text(json.dumps(document), encoding="utf-8")


def change_weights(folder, change_them):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change_them(weights)
    save_file(weights, path, metadata={"format": "pt"})


def loaded(task, folder, dtype="float32"):
    return task_class(task)(folder, dtype)


def head(folder, bias, **config):
    """Write a classifier whose numbers are `bias`, whatever the text is."""
    torch.manual_seed(7)
    labels = dict(enumerate("ABCDEFG"[: len(bias)]))
    model = transformers.BertForSequenceClassification(
        tiny_models.bert_config(id2label=labels, label2id={name: at for at, name in labels.items()}, **config)
    )
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(bias))
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)
    return folder


SIGMOID = torch.tensor([2.0, -1.0]).sigmoid().tolist()


@pytest.mark.parametrize(
    ("bias", "config", "right"),
    [
        ([3.7], {"problem_type": "regression"}, {"A": 3.7}),
        ([8.0, -2.0, 3.5], {"problem_type": "regression"}, {"A": 8.0, "B": -2.0, "C": 3.5}),
        ([2.0], {}, {"A": SIGMOID[0]}),
        ([2.0, -1.0], {"problem_type": "multi_label_classification"}, {"A": SIGMOID[0], "B": SIGMOID[1]}),
        ([1.0, 1.0], {}, {"A": 0.5, "B": 0.5}),
        ([3.7], {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, {"A": 3.7}),
        ([2.0], {"sbert_ce_default_activation_function": "torch.nn.Sigmoid"}, {"A": SIGMOID[0]}),
    ],
    ids=str,
)
def test_a_heads_numbers_become_scores_as_it_was_trained(bias, config, right, tmp_path):
    folder = head(tmp_path / "model", bias, **config)
    [got] = asking.predictions(loaded(CLASSIFY, folder), CLASSIFY, ["paris"], top_k=7)
    assert {item["label"]: item["score"] for item in got["top"]} == pytest.approx(right, abs=1e-4)


def test_labels_may_have_numbers_as_text(tmp_path):
    folder = head(tmp_path / "model", [0.0, 1.0])
    change(folder, id2label={"0": "NO", "1": "YES"}, label2id={"NO": "0", "YES": "1"})
    assert asking.predictions(loaded(CLASSIFY, folder), CLASSIFY, ["paris"])[0]["label"] == "YES"


def test_a_label_that_the_head_does_not_have_is_refused(tmp_path):
    folder = head(tmp_path / "model", [0.0, 1.0])
    change(folder, id2label={"0": "NO", "2": "YES"})
    with pytest.raises(ModelLoadError, match="id2label has 2 labels and numbers one of them 2"):
        loaded(CLASSIFY, folder)


@pytest.mark.parametrize("number", ["2", 2])
def test_entailment_is_found_whatever_form_its_number_has(number, tmp_path):
    folder = head(tmp_path / "model", [0.0, 1.0, 3.0])
    names = {"contradiction": "0", "neutral": "1", "entailment": number}
    change(folder, id2label={"0": "contradiction", "1": "neutral", "2": "entailment"}, label2id=names)
    [got] = asking.predictions(loaded(ZERO_SHOT, folder), ZERO_SHOT, ["paris"], candidate_labels=["a"])
    assert got["scores"] == pytest.approx([torch.tensor([0.0, 3.0]).softmax(0)[1].item()], abs=1e-4)


def test_label_maps_that_disagree_about_entailment_are_refused(tmp_path):
    folder = head(tmp_path / "model", [0.0, 1.0, 3.0])
    labels = {"0": "contradiction", "1": "neutral", "2": "entailment"}
    change(folder, id2label=labels, label2id={"contradiction": 2, "neutral": 1, "entailment": 0})
    with pytest.raises(ModelLoadError, match="the label 'entailment' the numbers 0 and 2"):
        loaded(ZERO_SHOT, folder)


def with_code(folder):
    change(folder, auto_map={"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.XModel"})


def with_code_of_another_repository(folder):
    change(folder, auto_map={"AutoModel": "org/code--modeling_x.XModel"})


def with_code_for_the_tokenizer(folder):
    change(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tok.XTokenizer"]})


def with_an_adapter(folder):
    change(folder, "adapter_config.json", peft_type="LORA", r=2, base_model_name_or_path="org/base")
    save_file({"base_model.model.x": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")


def with_only_an_adapter(folder):
    with_an_adapter(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()


def with_relative_positions(folder):
    change(folder, position_embedding_type="relative_key")

    def add(weights):
        for layer in range(2):
            name = f"bert.encoder.layer.{layer}.attention.self.distance_embedding.weight"
            weights[name] = torch.randn(127, 16)

    change_weights(folder, add)


def with_alibi(folder):
    change(folder, position_embedding_type="alibi")


def with_another_layer(folder):
    def add(weights):
        for name in [name for name in weights if ".layer.1." in name]:
            weights[name.replace(".layer.1.", ".layer.2.")] = weights[name].clone()

    change_weights(folder, add)


def with_nan(folder):
    def spoil(weights):
        weights["classifier.bias"][0] = float("nan")

    change_weights(folder, spoil)


def with_a_lost_shard(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def with_unknown_quantization(folder):
    change(folder, quantization_config={"quant_method": "awq", "bits": 4})


REFUSED = {
    "auto_map": (with_code, r"auto_map names configuration_x.XConfig as AutoConfig"),
    "auto_map elsewhere": (with_code_of_another_repository, r"auto_map names org/code--modeling_x.XModel"),
    "auto_map of a tokenizer": (
        with_code_for_the_tokenizer,
        r"tokenizer_config.json: auto_map names tok.XTok",
    ),
    "adapter": (with_an_adapter, r"has adapter_config.json: adapters are not applied; .* of 'org/base'"),
    "adapter alone": (with_only_an_adapter, r"has adapter_config.json: adapters are not applied"),
    "relative_key": (with_relative_positions, r"distance_embedding"),
    "alibi": (with_alibi, r"position_embedding_type: got 'alibi'"),
    "another layer": (with_another_layer, r"has no place for: bert\.encoder\.layer\.2\."),
    "NaN": (with_nan, r"NotFiniteError: the model's output has NaN or infinity"),
    "lost shard": (
        with_a_lost_shard,
        r"lacks model-00002-of-\d+\.safetensors, which model.safetensors.index",
    ),
    "quantization": (with_unknown_quantization, r"cannot be loaded for text-classification: \w+: "),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_be_another_model_is_refused_by_name(kind, tmp_path):
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")
    spoil, reason = REFUSED[kind]
    spoil(folder)
    with pytest.raises(ModelLoadError, match=reason):
        loaded(CLASSIFY, folder)


def with_old_buffers(folder):
    def add(weights):
        weights["bert.embeddings.position_ids"] = torch.arange(tiny_models.MAX_TOKENS)[None]

    change_weights(folder, add)


def with_code_that_transformers_has(folder):
    names = {"AutoConfig": "configuration_bert.BertConfig", "AutoModel": "modeling_bert.BertModel"}
    change(folder, auto_map=names)


def with_tuples(folder):
    change(folder, return_dict=False)


def without_limits(folder):
    change(folder, "tokenizer_config.json", model_max_length=-1)


def in_shards(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")


def with_fewer_inputs(folder):
    change(folder, "tokenizer_config.json", model_input_names=["input_ids"])


SERVED = {
    "buffers of old versions": with_old_buffers,
    "code that transformers has": with_code_that_transformers_has,
    "tuples": with_tuples,
    "a limit of -1": without_limits,
    "shards": in_shards,
    "a tokenizer that names no mask": with_fewer_inputs,
}


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("name", ["bert", "albert"])
def test_what_makes_no_difference_is_served(name, kind, tmp_path):
    folder = architectures.write(name, CLASSIFY, tmp_path / "model")
    right = asking.right_answers(architectures.auto_class(CLASSIFY), CLASSIFY, folder)
    if (kind, name) == ("code that transformers has", "albert"):
        pytest.skip("the names are those of BERT")
    SERVED[kind](folder)
    for alone in (True, False):
        found = asking.predictions(loaded(CLASSIFY, folder), CLASSIFY, alone=alone, top_k=3)
        for got, wanted in zip(found, right, strict=True):
            scores = {item["label"]: item["score"] for item in got["top"]}
            assert [scores[f"LABEL_{at}"] for at in range(3)] == pytest.approx(wanted.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("stated", [4, None], ids=["another padding", "no padding"])
def test_a_causal_classifier_answers_alike_whatever_padding_its_config_states(name, stated, tmp_path):
    folder = architectures.write(name, CLASSIFY, tmp_path / "model")
    right = asking.right_answers(architectures.auto_class(CLASSIFY), CLASSIFY, folder)
    change(folder, pad_token_id=stated)
    model = loaded(CLASSIFY, folder)
    assert model.description["proof"]["step"].endswith("mixed lengths")
    for got, wanted in zip(asking.predictions(model, CLASSIFY), right, strict=True):
        assert got["score"] == pytest.approx(float(wanted.max()), abs=1e-3)


@pytest.mark.parametrize("task", [CLASSIFY, GENERATE])
def test_a_tokenizer_without_padding_end_and_unknown_token_is_served(task, tmp_path):
    name = "bert" if task is CLASSIFY else "llama"
    folder = architectures.write(name, task, tmp_path / "model")
    right = asking.right_answers(architectures.auto_class(task), task, folder)
    nothing = {f"{kind}_token": None for kind in ("pad", "eos", "unk", "bos", "cls", "sep", "mask")}
    change(folder, "tokenizer_config.json", **nothing)
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    got = asking.predictions(
        loaded(task, folder), task, **({} if task is CLASSIFY else {"max_new_tokens": 5})
    )
    if task is CLASSIFY:
        assert [each["score"] for each in got] == pytest.approx(
            [float(each.max()) for each in right], abs=1e-3
        )
    else:
        assert len(got) == len(right)


def test_segments_that_the_model_does_not_have_are_left_out(tmp_path):
    torch.manual_seed(7)
    names = ["contradiction", "neutral", "entailment"]
    config = architectures.config_of("roberta", type_vocab_size=1, id2label=dict(enumerate(names)))
    config.label2id = {name: at for at, name in enumerate(names)}
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    [got] = asking.predictions(loaded(ZERO_SHOT, tmp_path), ZERO_SHOT, ["paris"], candidate_labels=["good"])
    assert 0 < got["scores"][0] < 1


def test_a_token_that_the_model_does_not_know_is_the_requests_fault(tmp_path):
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<x>"])
    tokenizer.save_pretrained(folder)
    model = loaded(CLASSIFY, folder)
    with pytest.raises(
        InvalidInputError, match="the text has the token '<x>', number 77; the model knows those below 77"
    ):
        asking.predictions(model, CLASSIFY, ["a <x> b"])


def bare_tokenizer():
    """Return a tokenizer that adds no tokens, so that a text may become none."""
    words = {
        word: at for at, word in enumerate(dict.fromkeys([*tiny_models.SPECIAL, *tiny_models.WORDS.split()]))
    }
    fast = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    fast.normalizer, fast.pre_tokenizer = BertNormalizer(), Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]")


@pytest.mark.parametrize("text", ["\u200b", "\u0000", "\ufeff"], ids=ascii)
@pytest.mark.parametrize("task", [CLASSIFY, FEATURES])
def test_a_text_that_becomes_no_token_is_the_requests_fault(task, text, tmp_path):
    folder = tiny_models.write(task, tmp_path / "model")
    bare_tokenizer().save_pretrained(folder)
    with pytest.raises(InvalidInputError, match="becomes no token"):
        asking.predictions(loaded(task, folder), task, [text])


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_masked_language_model_does_not_generate(name, tmp_path):
    folder = architectures.write(name, Task.FILL_MASK, tmp_path / "model")
    with pytest.raises(ModelLoadError, match="looks at what comes after a token too"):
        loaded(GENERATE, folder)


def test_what_is_no_number_is_an_error_and_no_answer(tmp_path):
    folder = tiny_models.write(CLASSIFY, tmp_path / "model")
    model = loaded(CLASSIFY, folder)
    model._pretrained.model.classifier.bias.data[0] = float("nan")
    with pytest.raises(NotFiniteError):
        asking.predictions(model, CLASSIFY)


@pytest.mark.parametrize("task", [GENERATE, REWRITE])
def test_generation_stops_where_the_model_computes_no_numbers(task, tmp_path):
    folder = tiny_models.write(task, tmp_path / "model")
    model = loaded(task, folder)
    next(model._pretrained.model.parameters()).data.fill_(float("nan"))
    [sequence] = model.encode("paris", parse_parameters(task, {}), InputLimit(20, truncate=True))
    with pytest.raises(NotFiniteError):
        asking.outputs_of(model, [[sequence]])


def test_a_limit_that_is_too_high_by_the_first_position_is_found_out(tmp_path):
    """Data2Vec numbers its first position as RoBERTa does, and has another name for it."""
    folder = architectures.write("data2vec-text", CLASSIFY, tmp_path / "model")
    change(folder, "tokenizer_config.json", model_max_length=10**6)
    model = loaded(CLASSIFY, folder)
    long = "goal " * 200
    assert asking.predictions(model, CLASSIFY, [long])[0]["label"].startswith("LABEL_")
