"""token-classification: the entities in a text, such as names and places."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoModelForTokenClassification, TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError, Output, Prediction, Progress
from serve_app.loading.proof import Changed, rounding_changed, token_label_changed
from serve_app.parameters import TokenClassificationParameters
from serve_app.tasks.labels import label_names
from serve_app.tasks.pretrained_task import PretrainedTask


class TokenClassification(PretrainedTask):
    """A token classification model; transformers' pipeline merges its word pieces."""

    task: ClassVar = Task.TOKEN_CLASSIFICATION
    auto_class = AutoModelForTokenClassification
    outputs: ClassVar = (Output("entities", "BYTES", (-1,)),)

    def load_extras(self, folder: Path) -> None:
        if not self._pretrained.hf_tokenizer.is_fast:
            raise ModelLoadError(f"{folder} has no tokenizer.json, which {Task.TOKEN_CLASSIFICATION} needs")
        self._labels = label_names(folder, self._pretrained.model.config)
        self._pipeline = TokenClassificationPipeline(
            model=self._pretrained.model, tokenizer=self._pretrained.hf_tokenizer
        )

    def drop(self) -> None:
        super().drop()
        self.__dict__.pop("_pipeline", None)

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "labels": self._labels}

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the logits, one tensor of shape (tokens, labels) for each sequence."""
        logits = self._logits(batch)
        return [row[: encoded.length] for row, encoded in zip(logits, batch, strict=True)]

    def changed(self, *, exact: bool) -> Changed:
        return rounding_changed if exact else token_label_changed

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: TokenClassificationParameters,
    ) -> Prediction:
        limit = InputLimit(encoded[0].length, truncate=True)
        tokenizer = self._pretrained.tokenizer
        # The places of the tokens are counted from the beginning.
        reach = (
            text if tokenizer.hf_tokenizer.truncation_side == "left" else tokenizer.within_reach(text, limit)
        )
        whole = tokenizer.encoding(reach, limit)
        entities = self._pipeline.postprocess(
            [
                {
                    "sentence": text,
                    "logits": outputs[0][None],
                    "input_ids": torch.tensor([whole.ids]),
                    "offset_mapping": [whole.offsets],
                    "special_tokens_mask": torch.tensor([whole.special_tokens_mask]),
                    "word_ids": whole.word_ids,
                }
            ],
            aggregation_strategy=AggregationStrategy(parameters.aggregation_strategy),
        )
        return {"entities": [_plain(entity) for entity in entities]}


def _plain(entity: dict[str, Any]) -> dict[str, Any]:
    """Return the entity with Python's own numbers in place of numpy's."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in entity.items()}
