"""text-classification: one label for a text."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import AutoModelForSequenceClassification

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, Output, Prediction, Progress
from serve_app.parameters import TextClassificationParameters
from serve_app.tasks.pretrained_task import PretrainedTask


class TextClassification(PretrainedTask):
    """A sequence classification model."""

    task: ClassVar = Task.TEXT_CLASSIFICATION
    auto_class: ClassVar = AutoModelForSequenceClassification
    decodes_fast: ClassVar = True
    outputs: ClassVar = (Output("label", "BYTES", (-1,)), Output("score", "FP32", (-1,)))

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "labels": list(self._labels.values())}

    @property
    def _labels(self) -> dict[int, str]:
        labels: dict[int, str] = self._pretrained.model.config.id2label
        return labels

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the logits, one row of shape (labels,) for each sequence."""
        return list(self._logits(batch))

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        return self._scores(output, TextClassificationParameters())

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: TextClassificationParameters,
    ) -> Prediction:
        # One operation of torch takes as long as sorting a few labels in Python.
        scores: list[float] = self._scores(outputs[0], parameters).tolist()
        ranked = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
        named = [{"label": self._labels[index], "score": scores[index]} for index in ranked]
        prediction: Prediction = dict(named[0])
        if parameters.top_k is not None:
            prediction["top"] = named[: parameters.top_k]
        return prediction

    def _scores(self, logits: torch.Tensor, parameters: TextClassificationParameters) -> torch.Tensor:
        function = parameters.function_to_apply
        if function is None:
            # transformers' own pipeline chooses in the same way.
            several = self._pretrained.model.config.problem_type == "multi_label_classification"
            function = "sigmoid" if several or len(logits) == 1 else "softmax"
        if function == "sigmoid":
            return logits.sigmoid()
        return logits.softmax(-1) if function == "softmax" else logits
