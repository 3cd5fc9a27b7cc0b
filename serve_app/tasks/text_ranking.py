"""text-ranking: how well a text answers a query, scored by a model that reads both together.

Such models are known as cross-encoders and rerankers. Scores are those of sentence-transformers'
CrossEncoder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from transformers import AutoModelForSequenceClassification

from serve_app.contract import Task
from serve_app.engine.base import (
    EncodedSequence,
    InputLimit,
    ModelLoadError,
    Output,
    Prediction,
    Progress,
    TextPair,
)
from serve_app.loading.proof import Changed, number_changed, rounding_changed, side_changed
from serve_app.loading.sentence_transformers import check_ranker, ranker_function
from serve_app.parameters import TextRankingParameters
from serve_app.tasks.pretrained_task import PretrainedTask

_PROOF_QUERY: Final = "Where can I read about the weather and the news of today?"


class TextRanking(PretrainedTask):
    """A sequence classification model whose head has one number."""

    task: ClassVar = Task.TEXT_RANKING
    auto_class = AutoModelForSequenceClassification
    decodes_fast: ClassVar = True
    # Scores are compared with each other and with thresholds; bfloat16 moved those of one model by 0.006.
    compared = False
    input_names: ClassVar = ("query", "text")
    inputs_required: ClassVar = 2
    outputs: ClassVar = (Output("score", "FP32", (-1,)),)

    def read_folder(self, folder: Path) -> None:
        check_ranker(folder)

    def load_extras(self, folder: Path) -> None:
        self._function = ranker_function(folder, self._pretrained.model.config) or "sigmoid"

    def check_model(self) -> None:
        labels = self._pretrained.model.config.num_labels
        if labels != 1:
            raise ModelLoadError(
                f"{self._folder} has {labels} labels; {self.task} needs a model with one, which scores the "
                "pair. Models of pairs with several labels can be served for text-classification"
            )

    @property
    def warmup_text(self) -> TextPair:
        return TextPair("ready", "ready")

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "function_to_apply": self._function}

    def sequences(
        self, text: TextPair, parameters: TextRankingParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        """Return one sequence. Where it is too long, the end of the text is cut off, and never the query."""
        return [EncodedSequence(self._pretrained.encode(text.first, limit, text.second, "second"))]

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the logits, of shape (1,) for each sequence."""
        return list(self._logits(batch))

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        return output.sigmoid() if self._function == "sigmoid" else output

    def changed(self, *, exact: bool) -> Changed:
        if exact:
            return rounding_changed
        return side_changed if self._function == "sigmoid" else number_changed

    def proof_text(self, text: str) -> TextPair:
        return TextPair(_PROOF_QUERY, text)

    def decode(
        self,
        text: TextPair,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: TextRankingParameters,
    ) -> Prediction:
        function = parameters.function_to_apply or self._function
        number = outputs[0].sigmoid() if function == "sigmoid" else outputs[0]
        return {"score": number.item()}
