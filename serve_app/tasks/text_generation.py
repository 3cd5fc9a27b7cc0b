"""text-generation: a causal model continues a text."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from serve_app.contract import ParameterValue, Task
from serve_app.engine.base import EncodedSequence, InputLimit, Output, Prediction, Progress
from serve_app.http.errors import InputTooLongError
from serve_app.parameters import GenerationParameters, TextGenerationParameters
from serve_app.tasks.pretrained_task import FULL_BATCHES, PretrainedTask


class TextGeneration(PretrainedTask):
    """A causal language model; texts with the same parameters share a batch."""

    task: ClassVar = Task.TEXT_GENERATION
    auto_class: ClassVar = AutoModelForCausalLM
    outputs: ClassVar = (Output("generated_text", "BYTES", (-1,)),)
    compared: ClassVar = False
    warmup_parameters: ClassVar[Mapping[str, ParameterValue]] = {"max_new_tokens": 1}

    @property
    def batch_overhead_tokens(self) -> int:
        return FULL_BATCHES

    def encode(
        self, text: str, parameters: TextGenerationParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        """Return the prompt, which must fit into the model together with the new tokens."""
        room = self._pretrained.max_tokens - parameters.max_new_tokens
        if room < 1:
            raise InputTooLongError(
                f"parameters.max_new_tokens: got {parameters.max_new_tokens}, and prompt and continuation "
                f"together may have {self._pretrained.max_tokens} tokens",
                limit=self._pretrained.max_tokens,
            )
        within = InputLimit(min(limit.max_tokens, room), limit.truncate)
        return [EncodedSequence(self._pretrained.encode(text, within), group=parameters)]

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the new token ids for each sequence."""
        parameters = batch[0].group
        assert isinstance(parameters, TextGenerationParameters)
        tensors = self._pretrained.collate(batch, side="left")
        tensors.pop("token_type_ids", None)
        generated = self._pretrained.model.generate(
            **tensors,
            **generation_options(parameters),
            pad_token_id=self._pretrained.hf_tokenizer.pad_token_id,
            stopping_criteria=StoppingCriteriaList([Ticker(progress)]),
        )
        return list(generated[:, tensors["input_ids"].shape[1] :].cpu())

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: TextGenerationParameters,
    ) -> Prediction:
        new = self._pretrained.hf_tokenizer.decode(outputs[0], skip_special_tokens=True)
        return {"generated_text": text + new if parameters.return_full_text else new}


class Ticker(StoppingCriteria):  # type: ignore[misc]
    """Reports each generated token, and stops a generation for which no client waits."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return whether each sequence has to stop."""
        abandoned = not self._progress.tick()
        return torch.full((input_ids.shape[0],), abandoned, device=input_ids.device, dtype=torch.bool)


def generation_options(parameters: GenerationParameters) -> dict[str, Any]:
    """Return the arguments of `generate`, with sampling options only if it samples."""
    options: dict[str, Any] = {
        "max_new_tokens": parameters.max_new_tokens,
        "do_sample": parameters.do_sample,
        "repetition_penalty": parameters.repetition_penalty,
    }
    if parameters.do_sample:
        sampling = ("temperature", "top_k", "top_p")
        options |= {name: getattr(parameters, name) for name in sampling}
    return options
