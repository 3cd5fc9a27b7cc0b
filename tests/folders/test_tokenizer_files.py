"""Files of all kinds of tokenizers: which are downloaded, what is answered with them, what else they need."""

import importlib
import json
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub.utils import filter_repo_objects
from transformers import tokenization_utils_base

from serve_app.contract import Task
from serve_app.engine.base import ModelLoadError
from serve_app.loading import kept_proofs
from serve_app.loading.sources.hub import HUB_FILES, NOT_HUB_FILES
from serve_app.tasks import task_class
from tests.folders import architectures, asking, translators
from tests.serve import tiny_models

CLASSIFY, REWRITE, TRANSLATE = Task.TEXT_CLASSIFICATION, Task.TEXT2TEXT_GENERATION, Task.TRANSLATION
MAX_TOKENS = 256
# Of all tokenizers, and of formats that are older, or other, than those of transformers.
COMMON = {
    tokenization_utils_base.ADDED_TOKENS_FILE,
    tokenization_utils_base.CHAT_TEMPLATE_FILE,
    f"{tokenization_utils_base.CHAT_TEMPLATE_DIR}/tools.jinja",
    tokenization_utils_base.FULL_TOKENIZER_FILE,
    tokenization_utils_base.SPECIAL_TOKENS_MAP_FILE,
    tokenization_utils_base.TOKENIZER_CONFIG_FILE,
    *("qwen.tiktoken", "sentencepiece.vocab", "tekken.json", "vocab.bpe"),
}
# Modules that import packages for sounds.
NO_TEXTS = {"pop2piano"}


def downloaded(names):
    return {*filter_repo_objects(names, allow_patterns=HUB_FILES, ignore_patterns=NOT_HUB_FILES)}


def tokenizer_modules():
    root = Path(transformers.__file__).parent
    for path in sorted(root.rglob("tokenization_*.py")):
        if path.parent.name not in NO_TEXTS:
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            yield importlib.import_module(f"transformers.{name}")


def files_of_all_tokenizers():
    members = [each for module in tokenizer_modules() for each in vars(module).values()]
    stated = [each.vocab_files_names for each in members if hasattr(each, "vocab_files_names")]
    assert len(stated) > 150
    return {name for names in stated for name in names.values()}


def test_the_files_of_every_tokenizer_are_downloaded():
    names = files_of_all_tokenizers() | COMMON
    assert names >= {"source.spm", "bpe.codes", "sentencepiece.bpe.model", "prophetnet.tokenizer"}
    assert names - downloaded(names) == set()


@pytest.mark.parametrize("name", ["source.spm", "vocab.bpe", "qwen.tiktoken", "prophetnet.tokenizer"])
def test_a_model_with_another_tokenizer_is_another_model(name, tmp_path):
    digests = set()
    for content in ("one", "other"):
        (tmp_path / name).write_text(content)
        digests.add(kept_proofs.digest_of(tmp_path, CLASSIFY, "float32", torch.device("cpu")))
    assert len(digests) == 2


def write_pieces(folder, kind, **stated):
    """Write the files of a tokenizer of PhoBERT's kind, which reads vocab.txt and bpe.codes."""
    letters = sorted(set(tiny_models.WORDS.replace(" ", "")))
    folder.mkdir()
    (folder / "vocab.txt").write_text(
        "".join(f"{each} 1\n" for each in [*letters, *(f"{x}@@" for x in letters)])
    )
    (folder / "bpe.codes").write_text("t h 5\n")
    tokenizer = kind(
        str(folder / "vocab.txt"), str(folder / "bpe.codes"), model_max_length=MAX_TOKENS, **stated
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_model(folder, task, name, tokenizer, **config):
    torch.manual_seed(7)
    settings = architectures.config_of(
        name, vocab_size=len(tokenizer), tokenizer_class=type(tokenizer).__name__, **config
    )
    model = architectures.auto_class(task).from_config(settings)
    architectures.spread(model)
    if model.can_generate():
        model.generation_config.decoder_start_token_id = 0
    model.save_pretrained(folder)
    return folder


def write_classifier(folder, kind, **stated):
    tokenizer = write_pieces(folder, kind, **stated)
    positions = {"max_position_embeddings": MAX_TOKENS + 2, "pad_token_id": 1}
    return write_model(folder, CLASSIFY, "roberta", tokenizer, num_labels=3, **positions)


def from_hub(folder, to):
    """Copy what a download of the folder has."""
    to.mkdir()
    for name in downloaded(path.name for path in folder.iterdir()):
        shutil.copy(folder / name, to / name)
    return to


@pytest.mark.parametrize("kind", [transformers.PhobertTokenizer, transformers.BertweetTokenizer])
def test_words_in_pieces_that_codes_merge(kind, tmp_path):
    folder = from_hub(write_classifier(tmp_path / "written", kind), tmp_path / "model")
    assert not (folder / "tokenizer.json").exists()
    right = asking.right_answers(architectures.auto_class(CLASSIFY), CLASSIFY, folder)
    for got, wanted in zip(
        asking.predictions(task_class(CLASSIFY)(folder, "float32"), CLASSIFY), right, strict=True
    ):
        assert got["score"] == pytest.approx(float(wanted.max()), abs=1e-4)


def test_bytes_need_no_file(tmp_path):
    tokenizer = transformers.ByT5Tokenizer(model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(tmp_path / "written")
    folder = write_model(tmp_path / "written", REWRITE, "t5", tokenizer, eos_token_id=1)
    folder = from_hub(folder, tmp_path / "model")
    right = asking.right_answers(architectures.auto_class(REWRITE), REWRITE, folder)
    got = asking.predictions(
        task_class(REWRITE)(folder, "float32"), REWRITE, max_new_tokens=asking.NEW_TOKENS
    )
    assert [each["generated_text"] for each in got] == right
    assert len(set(right)) > 1


@pytest.mark.parametrize("kind", translators.KINDS)
def test_translators_are_whole_after_a_download(kind, tmp_path):
    translators.write(kind, tmp_path / "written")
    folder = from_hub(tmp_path / "written", tmp_path / "model")
    with warnings.catch_warnings():
        # Nor does one recommend what it does not need.
        warnings.filterwarnings("error", message=".*pip install")
        model = task_class(TRANSLATE)(folder, "float32")
    assert model.description["proof"]["because"] == []


def test_emojis_as_words_need_a_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "emoji", None)
    folder = write_classifier(tmp_path / "model", transformers.BertweetTokenizer, normalization=True)
    with pytest.raises(ModelLoadError, match="writes emojis as words by the package emoji, which is not"):
        task_class(CLASSIFY)(folder, "float32")


def test_a_tokenizer_without_its_package_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    folder = architectures.write("xlm", CLASSIFY, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps({"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3}))
    (folder / "merges.txt").write_text("t h 5\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMTokenizer"}))
    with pytest.raises(ModelLoadError, match="You need to install sacremoses to use XLMTokenizer"):
        task_class(CLASSIFY)(folder, "float32")
