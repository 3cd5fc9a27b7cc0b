"""text2text-generation: a sequence-to-sequence model rewrites a text (summaries, translation)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import AutoModelForSeq2SeqLM, StoppingCriteriaList

from serve_app.contract import ParameterValue, Task
from serve_app.engine.base import EncodedSequence, InputLimit, Output, Prediction, Progress
from serve_app.parameters import Text2TextGenerationParameters
from serve_app.tasks.pretrained_task import FULL_BATCHES, PretrainedTask
from serve_app.tasks.text_generation import Ticker, generation_options


class Text2TextGeneration(PretrainedTask):
    """An encoder-decoder model; transformers 5 has no pipeline for these, so `generate` is called."""

    task: ClassVar = Task.TEXT2TEXT_GENERATION
    auto_class: ClassVar = AutoModelForSeq2SeqLM
    outputs: ClassVar = (Output("generated_text", "BYTES", (-1,)),)
    compared: ClassVar = False
    warmup_parameters: ClassVar[Mapping[str, ParameterValue]] = {"max_new_tokens": 1}

    @property
    def batch_overhead_tokens(self) -> int:
        return FULL_BATCHES

    def encode(
        self, text: str, parameters: Text2TextGenerationParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        features = self._pretrained.encode(self.prefix(parameters) + text, limit)
        return [EncodedSequence(features, group=tuple(self.options(parameters).items()))]

    def prefix(self, parameters: Text2TextGenerationParameters) -> str:
        """Return what goes in front of the text."""
        return parameters.prefix

    def options(self, parameters: Text2TextGenerationParameters) -> dict[str, Any]:
        """Return the arguments of `generate`."""
        return {**generation_options(parameters), "num_beams": parameters.num_beams}

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the generated token ids for each sequence."""
        options = batch[0].group
        assert isinstance(options, tuple)
        tensors = self._pretrained.collate(batch)
        tensors.pop("token_type_ids", None)
        generated = self._pretrained.model.generate(
            **tensors,
            **dict(options),
            stopping_criteria=StoppingCriteriaList([Ticker(progress)]),
        )
        return list(generated.cpu())

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: Text2TextGenerationParameters,
    ) -> Prediction:
        generated = self._pretrained.hf_tokenizer.decode(outputs[0], skip_special_tokens=True)
        return {self.outputs[0].name: generated}
