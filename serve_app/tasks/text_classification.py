"""text-classification: one label for a text, or for a pair of texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from transformers import AutoModelForSequenceClassification

from serve_app.contract import Task
from serve_app.engine.base import (
    EncodedSequence,
    Input,
    InputLimit,
    Output,
    Prediction,
    Progress,
    TextPair,
)
from serve_app.loading.proof import Changed, label_changed, number_changed, rounding_changed, side_changed
from serve_app.loading.sentence_transformers import ranker_function
from serve_app.parameters import TextClassificationParameters
from serve_app.tasks.labels import label_names
from serve_app.tasks.pretrained_task import PretrainedTask


class TextClassification(PretrainedTask):
    """A sequence classification model."""

    task: ClassVar = Task.TEXT_CLASSIFICATION
    auto_class = AutoModelForSequenceClassification
    decodes_fast: ClassVar = True
    input_names: ClassVar = ("text", "text_pair")
    outputs: ClassVar = (
        Output("label", "BYTES", (-1,)),
        Output("score", "FP32", (-1,)),
        Output("top", "BYTES", (-1,), parameter="top_k"),
    )

    def load_extras(self, folder: Path) -> None:
        config = self._pretrained.model.config
        self._labels = label_names(folder, config)
        self._function = _stated_function(folder, config)

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "labels": self._labels, "function_to_apply": self._function}

    def sequences(
        self, text: Input, parameters: TextClassificationParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        if isinstance(text, TextPair):
            return [EncodedSequence(self._pretrained.encode(text.first, limit, text.second, "longest"))]
        return super().sequences(text, parameters, limit)

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the logits, one row of shape (labels,) for each sequence."""
        return list(self._logits(batch))

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        return self._scores(output, TextClassificationParameters())

    def decode(
        self,
        text: Input,
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

    def changed(self, *, exact: bool) -> Changed:
        return rounding_changed if exact else _RULES[self._function]

    def _scores(self, logits: torch.Tensor, parameters: TextClassificationParameters) -> torch.Tensor:
        function = parameters.function_to_apply or self._function
        if function == "sigmoid":
            return logits.sigmoid()
        return logits.softmax(-1) if function == "softmax" else logits


_RULES: Final = {"sigmoid": side_changed, "softmax": label_changed, "none": number_changed}


def _stated_function(folder: Path, config: Any) -> str:
    """Return what turns the head's numbers into scores; transformers' own pipeline chooses in the same way.

    A ranker's head of one number may also come from sentence-transformers, which states the function.
    """
    if config.problem_type == "regression":
        return "none"
    if config.num_labels == 1 and (function := ranker_function(folder, config)):
        return function
    several = config.problem_type == "multi_label_classification"
    return "sigmoid" if several or config.num_labels == 1 else "softmax"
