"""Tiny folders for question answering, whose weights no version of torch or transformers changes."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel

from tests.folders import architectures
from tests.serve import tiny_models

# Of each tokenizer, the model whose folder it is in.
MODELS = {"words": "bert", "bytes": "roberta", "left": "bert", "no-cls": "gpt2", "metaspace": "distilbert"}


def write(kind: str, folder: Path, name: str = "") -> Path:
    """Write a folder with one of the tokenizers of MODELS, for its architecture or another one."""
    tokenizer = _TOKENIZERS[kind]()
    model = transformers.AutoModelForQuestionAnswering.from_config(
        architectures.config_of(name or MODELS[kind], vocab_size=len(tokenizer))
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(weight.shape)
            if weight.ndim == 1:
                # Norms keep about 1, biases about 0.
                weight.copy_(
                    torch.from_numpy(0.1 * numbers) + (1.0 if "orm" in name and "weight" in name else 0.0)
                )
            else:
                weight.copy_(torch.from_numpy(numbers * 1.5 / math.sqrt(weight.shape[-1])))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind == "left":
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"padding_side": "left"}))
    return folder


def _no_cls() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of words that adds nothing to a text."""
    vocabulary = {token: at for at, token in enumerate(["[PAD]", "[UNK]", *tiny_models.WORDS.split()])}
    fast = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", **_LIMITS
    )


def _bytes() -> transformers.PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("o", "n"), ("Ġ", "w")]
    tokens = [*special, *alphabet, *("".join(pair) for pair in merges)]
    fast = Tokenizer(BPE({token: at for at, token in enumerate(tokens)}, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        **_LIMITS,
    )


def _metaspace() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer of pieces that keeps the blank before a word."""
    letters = "abcdefghijklmnopqrstuvwxyz.,!?▁"
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("i", "n"), ("▁", "w")]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("".join(pair) for pair in merges)]
    numbers = {token: at for at, token in enumerate(tokens)}
    fast = Tokenizer(BPE(numbers, merges, unk_token="[UNK]", fuse_unk=True))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast.decoder = decoders.Metaspace()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **_LIMITS,
    )


_LIMITS = {
    "model_max_length": tiny_models.MAX_TOKENS,
    "model_input_names": ["input_ids", "attention_mask"],
}
_TOKENIZERS = {
    "words": tiny_models.tokenizer,
    "bytes": _bytes,
    "left": tiny_models.tokenizer,
    "no-cls": _no_cls,
    "metaspace": _metaspace,
}
