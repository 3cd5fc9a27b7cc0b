"""Tiny folders with random weights for translation: one for each way in which a model has languages."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers

from tests.folders import architectures
from tests.serve import tiny_models

LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?"
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SIZES = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
# As the folder of T5 states them.
PAIRS = {
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 9, "num_beams": 2},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "max_length": 7},
    "summarization": {"prefix": "summarize: ", "max_length": 30},
}


def write(
    kind: str, folder: Path, *, config: Mapping[str, Any] | None = None, **stated: Any
) -> tuple[Any, Any]:
    """Write a folder; return its tokenizer and model, as transformers loads them.

    `stated` goes into generation_config.json, `config` into config.json.
    """
    torch.manual_seed(11)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _TOKENIZERS[kind](folder)
    model_type = {"nllb": "m2m_100", "mbart50": "mbart", "marian of one pair": "marian"}.get(kind, kind)
    ids = {} if kind == "t5" else SIZES
    size = max(len(tokenizer), max(getattr(tokenizer, "id_to_lang_token", [0])) + 1)
    settings = architectures.config_of(model_type, vocab_size=size, **ids, **(config or {}))
    model = transformers.AutoModelForSeq2SeqLM.from_config(settings).eval()
    architectures.spread(model)
    names = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    shared = {name: getattr(settings, name, 0) for name in names}
    for name, value in {"max_new_tokens": 6, "no_repeat_ngram_size": 1, **shared, **stated}.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return (
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval(),
    )


def _nllb(folder: Path) -> Any:
    vocabulary = {token: at for at, token in enumerate([*SPECIAL, "▁", *LETTERS])}
    languages = ["eng_Latn", "fra_Latn", "deu_Latn", "zho_Hans"]
    return transformers.NllbTokenizer(vocabulary, [], additional_special_tokens=languages, **_LIMIT)


def _pieces() -> bytes:
    """Return a SentencePiece model of letters and a few words."""
    model = BytesIO()
    sentences = [tiny_models.WORDS, *tiny_models.WORDS.split(), LETTERS, " ".join(LETTERS)] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=48,
        character_coverage=1.0,
        minloglevel=2,
    )
    return model.getvalue()


def _vocabulary(pieces: bytes, *others: str) -> dict[str, int]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    words = [processor.id_to_piece(number) for number in range(3, len(processor))]
    return {token: at for at, token in enumerate([*SPECIAL, *words, *others])}


def _m2m_100(folder: Path) -> Any:
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    pieces = _pieces()
    (folder / "sentencepiece.bpe.model").write_bytes(pieces)
    (folder / "vocab.json").write_text(json.dumps(_vocabulary(pieces)), encoding="utf-8")
    languages = [f"__{name}__" for name in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    return transformers.M2M100Tokenizer(
        str(folder / "vocab.json"),
        str(folder / "sentencepiece.bpe.model"),
        additional_special_tokens=languages,
        **_LIMIT,
    )


def _unigram() -> list[tuple[str, float]]:
    return [
        *((token, 0.0) for token in SPECIAL),
        ("▁", -2.0),
        *((letter, -3.0) for letter in LETTERS),
        *((f"▁{word}", -4.0) for word in tiny_models.WORDS.split() if word not in LETTERS),
    ]


def _mbart(folder: Path) -> Any:
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

    vocabulary = [*_unigram(), *((code, 0.0) for code in FAIRSEQ_LANGUAGE_CODES), ("<mask>", 0.0)]
    return transformers.MBartTokenizer(vocabulary, **_LIMIT)


def _mbart50(folder: Path) -> Any:
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

    vocabulary = [*_unigram(), *((code, 0.0) for code in FAIRSEQ_LANGUAGE_CODES), ("<mask>", 0.0)]
    return transformers.MBart50Tokenizer(vocabulary, **_LIMIT)


def _marian(folder: Path, *codes: str) -> Any:
    pieces = _pieces()
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces)
    (folder / "vocab.json").write_text(json.dumps(_vocabulary(pieces, *codes)), encoding="utf-8")
    paths = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    return transformers.MarianTokenizer(*paths, source_lang="eng", target_lang="roa", **_LIMIT)


def _t5(folder: Path) -> Any:
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


_LIMIT = {"model_max_length": tiny_models.MAX_TOKENS}
_TOKENIZERS = {
    "nllb": _nllb,
    "m2m_100": _m2m_100,
    "mbart": _mbart,
    "mbart50": _mbart50,
    "marian": lambda folder: _marian(folder, ">>fra<<", ">>spa<<", ">>por<<"),
    "marian of one pair": _marian,
    "t5": _t5,
}
KINDS = tuple(_TOKENIZERS)
