"""feature-extraction: one vector for a text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModel

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, InputLimit, Output, Prediction, Progress
from serve_app.parameters import FeatureExtractionParameters
from serve_app.tasks.pretrained_task import PretrainedTask


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one vector, as sentence-transformers' modules state it."""

    mode: str
    normalize: bool


class FeatureExtraction(PretrainedTask):
    """An encoder with the pooling that its folder states, by default the mean."""

    task: ClassVar = Task.FEATURE_EXTRACTION
    auto_class: ClassVar = AutoModel
    labelled: ClassVar = False
    decodes_fast: ClassVar = True
    outputs: ClassVar = (Output("embedding", "FP32", (-1, -1)),)

    def load_extras(self, folder: Path) -> None:
        self._pooling = _stated_pooling(folder)

    @property
    def description(self) -> Mapping[str, Any]:
        stated = {"pooling": self._pooling.mode, "normalize": self._pooling.normalize}
        return {**super().description, **stated}

    def encode(
        self, text: str, parameters: FeatureExtractionParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        pooling = Pooling(
            parameters.pooling or self._pooling.mode,
            self._pooling.normalize if parameters.normalize is None else parameters.normalize,
        )
        return [EncodedSequence(self._pretrained.encode(text, limit), group=pooling)]

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return one vector of shape (width,) for each sequence."""
        tensors = self._pretrained.collate(batch)
        hidden = self._pretrained.run(tensors).last_hidden_state.float()
        pooling = batch[0].group
        assert isinstance(pooling, Pooling)
        vectors = _pool(hidden, tensors["attention_mask"], pooling.mode)
        if pooling.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return list(vectors.cpu())

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: FeatureExtractionParameters,
    ) -> Prediction:
        return {"embedding": outputs[0].tolist()}


def _pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Reduce (batch, tokens, width) to (batch, width), without the padding."""
    if mode == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "max":
        return hidden.masked_fill(weights == 0, -torch.inf).max(dim=1).values
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def _stated_pooling(folder: Path) -> Pooling:
    """Read sentence-transformers' modules.json and 1_Pooling/config.json, if they are there."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return Pooling("mean", normalize=False)
    kinds = [module["type"].rsplit(".", 1)[-1] for module in json.loads(modules.read_text())]
    stated = folder / "1_Pooling" / "config.json"
    config = json.loads(stated.read_text()) if stated.is_file() else {}
    mode = "mean"
    if config.get("pooling_mode_cls_token"):
        mode = "cls"
    elif config.get("pooling_mode_max_tokens"):
        mode = "max"
    return Pooling(mode, normalize="Normalize" in kinds)
