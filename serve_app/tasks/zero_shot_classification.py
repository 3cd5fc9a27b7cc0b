"""zero-shot-classification: the request brings the labels, and an inference model scores each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForSequenceClassification

from serve_app.contract import ParameterValue, Task
from serve_app.engine.base import EncodedSequence, InputLimit, Output, Prediction, Progress
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import ZeroShotParameters
from serve_app.tasks.labels import entailment_index
from serve_app.tasks.pretrained_task import PretrainedTask


class ZeroShotClassification(PretrainedTask):
    """A natural language inference model: does the text entail "This example is LABEL."?"""

    task: ClassVar = Task.ZERO_SHOT_CLASSIFICATION
    auto_class = AutoModelForSequenceClassification
    outputs: ClassVar = (Output("labels", "BYTES", (-1, -1)), Output("scores", "FP32", (-1, -1)))

    @property
    def warmup_parameters(self) -> Mapping[str, ParameterValue]:
        return {"candidate_labels": ["ready"]}

    def load_extras(self, folder: Path) -> None:
        self._entailment = entailment_index(folder, self._pretrained.model.config, self.task)

    def sequences(
        self, text: str, parameters: ZeroShotParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        """Return one sequence for each candidate label."""
        if not parameters.candidate_labels:
            raise InvalidInputError("parameters.candidate_labels: at least one label is required")
        hypotheses = [
            parameters.hypothesis_template.replace("{}", label) for label in parameters.candidate_labels
        ]
        text = self._pretrained.tokenizer.within_reach(text, limit)
        return [EncodedSequence(self._pretrained.encode(text, limit, pair)) for pair in hypotheses]

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the logits, one row of shape (classes,) for each text and label."""
        return list(self._logits(batch))

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: ZeroShotParameters,
    ) -> Prediction:
        logits = torch.stack(list(outputs))
        if parameters.multi_label or len(outputs) == 1:
            contradiction = -1 if self._entailment == 0 else 0
            scores = logits[:, [contradiction, self._entailment]].softmax(-1)[:, 1]
        else:
            scores = logits[:, self._entailment].softmax(-1)
        ranked = scores.argsort(descending=True).tolist()
        return {
            "labels": [parameters.candidate_labels[index] for index in ranked],
            "scores": [float(scores[index]) for index in ranked],
        }
