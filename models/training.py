"""Fine-tune the top of an encoder as a text classifier; must not read or write files.

Only the last layer, the pooler and the classifier learn. The layers below never change, so their
output is computed once, which makes training on two CPU cores a matter of seconds.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from models.examples import Example

SEED: Final = 0
EPOCHS: Final = 2
BATCH_SIZE: Final = 64
LAYER_RATE: Final = 3e-4
HEAD_RATE: Final = 1e-3
WARMUP_SHARE: Final = 0.1
# Lexicon words are no perfect evidence, so the model is taught not to be quite sure.
LABEL_SMOOTHING: Final = 0.1


@dataclass(frozen=True)
class Batch:
    """The lower layers' output for texts of one length, so that none is padded, and their labels."""

    hidden: Tensor
    labels: Tensor


def fine_tune(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> None:
    """Teach the model the examples, in place."""
    torch.manual_seed(SEED)
    random = Random(SEED)
    # Without dropout: the output of the lower layers is kept and must not depend on chance.
    model.eval()
    batches = [
        _batch(model, tokenizer, group) for group in _groups_of_one_length(tokenizer, examples, random)
    ]
    model.train()
    optimizer = _optimizer(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [LAYER_RATE, HEAD_RATE], total_steps=EPOCHS * len(batches), pct_start=WARMUP_SHARE
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for _ in range(EPOCHS):
        for batch in random.sample(batches, len(batches)):
            optimizer.zero_grad()
            loss_of(_logits(model, batch.hidden), batch.labels).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def predict(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[str]:
    """Return the most likely label of each text."""
    with torch.inference_mode():
        logits = model(**tokenizer(list(texts), padding=True, return_tensors="pt")).logits
    return [model.config.id2label[index] for index in logits.argmax(dim=-1).tolist()]


def _groups_of_one_length(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], random: Random
) -> list[list[Example]]:
    by_length: dict[int, list[Example]] = defaultdict(list)
    for example in random.sample(examples, len(examples)):
        by_length[len(tokenizer.tokenize(example.text))].append(example)
    return [
        group[start : start + BATCH_SIZE]
        for group in by_length.values()
        for start in range(0, len(group), BATCH_SIZE)
    ]


def _batch(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, group: Sequence[Example]
) -> Batch:
    token_ids = tokenizer([example.text for example in group], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = model.bert.embeddings(input_ids=token_ids)
        for layer in model.bert.encoder.layer[:-1]:
            hidden = layer(hidden)
    return Batch(hidden, torch.tensor([model.config.label2id[example.label] for example in group]))


def _logits(model: BertForSequenceClassification, hidden: Tensor) -> Tensor:
    top_layer = model.bert.encoder.layer[-1]
    logits: Tensor = model.classifier(model.dropout(model.bert.pooler(top_layer(hidden))))
    return logits


def _optimizer(model: BertForSequenceClassification) -> torch.optim.Optimizer:
    head = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    return torch.optim.AdamW(
        [
            {"params": list(model.bert.encoder.layer[-1].parameters()), "lr": LAYER_RATE},
            {"params": head, "lr": HEAD_RATE},
        ]
    )
