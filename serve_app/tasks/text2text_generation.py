"""text2text-generation: a sequence-to-sequence model rewrites a text (summaries, translation)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from transformers import AutoModelForSeq2SeqLM

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, InputLimit, Prediction
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import Text2TextGenerationParameters
from serve_app.tasks.generation import GeneratingTask

_LENGTHS: Final = ("max_new_tokens", "max_length")
# Options of `generate` that ask which tokens the encoder got.
_LOOKS_BACK: Final = ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size")


class Text2TextGeneration(GeneratingTask):
    """An encoder-decoder model; transformers 5 has no pipeline for these, so `generate` is called."""

    task: ClassVar = Task.TEXT2TEXT_GENERATION
    auto_class = AutoModelForSeq2SeqLM

    def load_extras(self, folder: Path) -> None:
        super().load_extras(folder)
        generation = self._pretrained.model.generation_config
        for name in _LENGTHS:
            stated = getattr(generation, name)
            setattr(generation, name, self.within_positions(name, stated))

    def within_positions(self, name: str, stated: Any) -> Any:
        """Return the value that a folder states, at most as many tokens as the decoder numbers."""
        if name in _LENGTHS and stated is not None and self._decoder_positions is not None:
            return min(stated, self._decoder_positions)
        return stated

    @property
    def default_new_tokens(self) -> int:
        return min(super().default_new_tokens, self._decoder_positions or super().default_new_tokens)

    @property
    def _decoder_positions(self) -> int | None:
        """How many tokens the decoder can number; None if it numbers none."""
        config = self._pretrained.model.config
        stated = getattr(config, "max_decoder_position_embeddings", None) or getattr(
            config, "max_position_embeddings", None
        )
        return stated if isinstance(stated, int) and stated > 0 else None

    def sequences(
        self, text: str, parameters: Text2TextGenerationParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        options = self.options(parameters)
        positions = self._decoder_positions
        for name in _LENGTHS:
            given = options.get(name)
            if positions is not None and given is not None and given > positions:
                raise InvalidInputError(
                    f"parameters.{name}: got {given}; this model generates up to {positions} tokens",
                    limit=positions,
                )
        features = self.features(text, parameters, limit)
        group = self.group(options, len(features["input_ids"]), _LOOKS_BACK)
        return [EncodedSequence(features, group, self.most_new_tokens(options))]

    def features(
        self, text: str, parameters: Text2TextGenerationParameters, limit: InputLimit
    ) -> dict[str, list[int]]:
        """Return the model's inputs for the text."""
        return self._pretrained.encode(self.prefix(parameters) + text, limit)

    def prefix(self, parameters: Text2TextGenerationParameters) -> str:
        """Return what goes in front of the text."""
        return parameters.prefix

    def new_tokens(self, batch: Sequence[EncodedSequence], generated: torch.Tensor) -> torch.Tensor:
        return generated

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: Text2TextGenerationParameters,
    ) -> Prediction:
        generated = self._pretrained.hf_tokenizer.decode(outputs[0], skip_special_tokens=True)
        return {self.outputs[0].name: generated}
