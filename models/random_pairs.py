"""Write tiny models of pairs of texts with random weights, for tests of serving only; must not train."""

from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering, BertForSequenceClassification

from models.cards import random_card
from models.packages import encoder_folder

SEED: Final = 7
WIDTH: Final = 64
# Larger than BERT's, so that scores of different texts differ.
SPREAD: Final = 0.5
MAX_TOKENS: Final = 256


def make_random_ranker(folder: Path) -> None:
    """Write a BERT that scores pairs, with random weights."""
    _write(folder, "random-ranker", BertForSequenceClassification, num_labels=1)


def make_random_qa(folder: Path) -> None:
    """Write a BERT that answers questions from a context, with random weights."""
    _write(folder, "random-qa", BertForQuestionAnswering)


def _write(folder: Path, name: str, model_class: Any, **options: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder(), model_max_length=MAX_TOKENS)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=SPREAD,
        **options,
    )
    torch.manual_seed(SEED)
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(random_card(name, "BERT"), encoding="utf-8")
