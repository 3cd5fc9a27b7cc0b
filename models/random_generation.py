"""Write tiny generation models with random weights, for tests of generation only; must not train."""

from pathlib import Path
from typing import Any, Final

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from models.cards import random_card
from models.packages import encoder_folder

SEED: Final = 7
WIDTH: Final = 64
LAYERS: Final = 2
HEADS: Final = 4
MAX_TOKENS: Final = 256


def make_random_causal(folder: Path) -> None:
    """Write a GPT-2 with random weights."""
    # A prompt is continued at its right end, so neither an end token nor padding may stand there.
    tokenizer = _tokenizer("[CLS] $A", padding_side="left")
    config = GPT2Config(
        n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=MAX_TOKENS, **_special_tokens(tokenizer)
    )
    torch.manual_seed(SEED)
    _write(folder, GPT2LMHeadModel(config), tokenizer, random_card("random-causal", "GPT-2"))


def make_random_seq2seq(folder: Path) -> None:
    """Write a T5 with random weights."""
    tokenizer = _tokenizer("$A [SEP]", padding_side="right")
    config = T5Config(
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=2 * WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        decoder_start_token_id=tokenizer.pad_token_id,
        **_special_tokens(tokenizer),
    )
    torch.manual_seed(SEED)
    _write(folder, T5ForConditionalGeneration(config), tokenizer, random_card("random-seq2seq", "T5"))


def _tokenizer(template: str, padding_side: str) -> PreTrainedTokenizerFast:
    encoder = AutoTokenizer.from_pretrained(encoder_folder())
    words = encoder.backend_tokenizer
    words.post_processor = TemplateProcessing(
        single=template, special_tokens=[(token, words.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    # The encoder's own habits: it cuts texts at 128 tokens.
    words.no_truncation()
    words.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="[CLS]",
        eos_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=MAX_TOKENS,
        padding_side=padding_side,
        # Neither architecture knows the token types of the encoder this vocabulary comes from.
        model_input_names=["input_ids", "attention_mask"],
    )


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _write(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast, card: str) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
