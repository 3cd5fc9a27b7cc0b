"""The model as a service's own code calls it: one padded batch, nothing sorted.

Imported by the servers that leave this part to the user; what to serve comes from the environment.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

FOLDER = os.environ["BENCH_MODEL"]
TASK = os.environ["BENCH_TASK"]
DTYPE = os.environ["BENCH_DTYPE"]
DEVICE = os.environ["BENCH_DEVICE"]
PORT = int(os.environ["BENCH_PORT"])
MAX_BATCH = int(os.environ["BENCH_MAX_BATCH"])


class Model:
    """A classifier or an encoder whose mean token vector is the answer."""

    def __init__(self) -> None:
        classify = TASK == "text-classification"
        auto_class = AutoModelForSequenceClassification if classify else AutoModel
        self._tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self._model = auto_class.from_pretrained(FOLDER, dtype=DTYPE).eval().to(DEVICE)
        self._finish = self._labels if classify else self._vectors

    def __call__(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return one JSON-ready answer for each text."""
        batch = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(DEVICE)
        with torch.inference_mode():
            return self._finish(self._model(**batch), batch["attention_mask"])

    def _labels(self, output: Any, mask: torch.Tensor) -> list[dict[str, Any]]:
        scores, labels = output.logits.float().softmax(-1).max(-1)
        names = self._model.config.id2label
        return [
            {"label": names[label], "score": score}
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]

    def _vectors(self, output: Any, mask: torch.Tensor) -> list[dict[str, Any]]:
        weights = mask.unsqueeze(-1).float()
        means = (output.last_hidden_state.float() * weights).sum(1) / weights.sum(1)
        return [{"embedding": row} for row in torch.nn.functional.normalize(means).tolist()]
