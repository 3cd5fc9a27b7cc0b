"""What the tasks that generate texts share: the options of `generate`, and the proof of such a model."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from serve_app.contract import ParameterValue
from serve_app.engine.base import EncodedSequence, NotFiniteError, Output, Progress
from serve_app.engine.continuous.continuation import Continued
from serve_app.loading.proof import Changed, generation_changed
from serve_app.parameters import GenerationParameters
from serve_app.tasks.pretrained_task import FULL_BATCHES, PretrainedTask

_SAMPLING: Final = ("temperature", "top_k", "top_p")
# Parameters of tasks that `generate` does not know.
_OTHERS: Final = {"prefix", "return_full_text", "src_lang", "tgt_lang"} | {
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "ignore_eos",
}
# Logits divided by less than this leave the range of float32.
_LEAST_TEMPERATURE: Final = 1e-5
_PROOF_TOKENS: Final = 3
_PROOF: Final[Mapping[str, Any]] = {
    "do_sample": False,
    "num_beams": 1,
    "return_dict_in_generate": True,
    "output_logits": True,
}


class GeneratingTask(PretrainedTask):
    """A model with `generate`. What neither the request nor the endpoint sets is as the model states it."""

    outputs: ClassVar = (Output("generated_text", "BYTES", (-1,)),)
    compared = False
    own_layers = False
    # Whether the ids that `generate` returns begin with those of the prompt.
    repeats_prompt: ClassVar[bool] = False
    _stop_texts: Sequence[str] = ()

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "batching": "whole batches"}

    @property
    def warmup_parameters(self) -> Mapping[str, ParameterValue]:
        return {"max_new_tokens": 1}

    @property
    def batch_overhead_tokens(self) -> int:
        return FULL_BATCHES

    def load_extras(self, folder: Path) -> None:
        generation = self._pretrained.model.generation_config
        # One text is returned for each text, and nothing else.
        generation.num_return_sequences = 1
        generation.return_dict_in_generate = False
        for name in ("output_scores", "output_logits", "output_attentions", "output_hidden_states"):
            setattr(generation, name, False)
        # transformers' own way needs tokenizers that can spell, and fails with others.
        stop = generation.stop_strings or self._stop_texts
        self._stop_texts = [stop] if isinstance(stop, str) else list(stop)
        generation.stop_strings = None
        if generation.max_length is None and generation.max_new_tokens is None:
            generation.max_new_tokens = self.default_new_tokens

    @property
    def default_new_tokens(self) -> int:
        """How many tokens are generated where nobody says how many."""
        return GenerationParameters().max_new_tokens

    def options(self, parameters: GenerationParameters) -> dict[str, Any]:
        """Return the arguments of `generate` that were given; it takes all others from the model."""
        given = parameters.model_dump(exclude_unset=True, exclude=_OTHERS)
        stated = self._pretrained.model.generation_config
        samples = given.get("do_sample", stated.do_sample)
        temperature = given.get("temperature", stated.temperature)
        if samples and temperature is not None and temperature < _LEAST_TEMPERATURE:
            samples = given["do_sample"] = False
        if not samples:
            given = {name: value for name, value in given.items() if name not in _SAMPLING}
        return given

    def most_new_tokens(self, options: Mapping[str, Any]) -> int:
        """Return how many tokens are generated at most; each beam has its own."""
        stated = self._pretrained.model.generation_config
        tokens = options.get("max_new_tokens") or options.get("max_length")
        tokens = tokens or stated.max_new_tokens or stated.max_length
        beams = options.get("num_beams", stated.num_beams) or 1
        return int(tokens * beams)

    def group(self, options: Mapping[str, Any], length: int, looks_back: Sequence[str]) -> Hashable:
        """Return what sequences share in a batch: the options, and the length if one of `looks_back` is set.

        Such options make tokens of the prompt less likely, and would count its padding as tokens.
        """
        stated = self._pretrained.model.generation_config
        set_ones = [
            name for name in looks_back if (options.get(name, getattr(stated, name)) or 0) not in (0, 1)
        ]
        return tuple(options.items()), length if set_ones else None

    def generated(self, batch: Sequence[EncodedSequence], progress: Progress, **options: Any) -> Any:
        """Return what `generate` returns for the batch."""
        tensors = self.inputs(batch)
        criteria: list[StoppingCriteria] = [_Ticker(progress)]
        if self._stop_texts:
            prompt = tensors["input_ids"].shape[1] if self.repeats_prompt else 0
            criteria.append(_StopTexts(self._pretrained.hf_tokenizer, self._stop_texts, prompt))
        return self._pretrained.model.generate(
            **tensors,
            **{**dict(self.group_of(batch)[0]), **options},
            logits_processor=LogitsProcessorList([_RequireNumbers()]),
            stopping_criteria=StoppingCriteriaList(criteria),
        )

    def inputs(self, batch: Sequence[EncodedSequence]) -> dict[str, torch.Tensor]:
        """Return the arguments of `generate` for the texts of a batch."""
        tensors = self._pretrained.collate(batch)
        tensors.pop("token_type_ids", None)
        return tensors

    @abstractmethod
    def new_tokens(self, batch: Sequence[EncodedSequence], generated: torch.Tensor) -> torch.Tensor:
        """Return what is new in the token ids that `generate` returned, one row for each text."""

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the new token ids for each sequence."""
        return list(self.new_tokens(batch, self.generated(batch, progress)).cpu())

    def output_tokens(self, outputs: Sequence[Any]) -> int:
        # Models whose answer does not repeat the prompt begin it with a token that nobody has generated.
        begin = 0 if self.repeats_prompt else 1
        return sum(
            len(output.tokens) if isinstance(output, Continued) else _length(output[begin:], self._ends)
            for output in outputs
        )

    @property
    def _ends(self) -> torch.Tensor:
        """The tokens that end a text."""
        stated = self._pretrained.model.generation_config.eos_token_id
        return torch.tensor(stated if isinstance(stated, list) else [-1 if stated is None else stated])

    def changed(self, *, exact: bool) -> Changed:
        return partial(generation_changed, exact=exact)

    @property
    def proof_parameters(self) -> Mapping[str, ParameterValue]:
        return {**self.warmup_parameters, "max_new_tokens": _PROOF_TOKENS}

    def proof_answers(self, batch: Sequence[EncodedSequence]) -> list[torch.Tensor]:
        """Return the new tokens of each text, each followed by its logits."""
        with torch.inference_mode():
            generated = self.generated(batch, _Awaited((), 0), **_PROOF)
        logits = torch.stack(generated.logits, dim=1).float().cpu()
        # The first token of a decoder is not generated.
        tokens = self.new_tokens(batch, generated.sequences).cpu()[:, -logits.shape[1] :]
        answers = torch.cat([tokens[:, :, None].float(), logits], dim=-1)
        return [row[: _length(row[:, 0].long(), self._ends)] for row in answers]


def _length(tokens: torch.Tensor, ends: torch.Tensor) -> int:
    """Return the number of tokens up to the first that ends a text."""
    found = torch.isin(tokens, ends).nonzero()
    return int(found[0]) + 1 if len(found) else len(tokens)


class _Awaited(Progress):
    """Of a generation for which the proof waits, and no client."""

    def tick(self) -> bool:
        return True


class _Ticker(StoppingCriteria):  # type: ignore[misc]
    """Reports each generated token, and stops a generation for which no client waits."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return whether each sequence has to stop."""
        abandoned = not self._progress.tick()
        return torch.full((input_ids.shape[0],), abandoned, device=input_ids.device, dtype=torch.bool)


class _StopTexts(StoppingCriteria):  # type: ignore[misc]
    """Stops each text that has one of the texts behind its first `prompt` tokens."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], prompt: int) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self._prompt = prompt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return whether each sequence has to stop."""
        new = [self._tokenizer.decode(row[self._prompt :]) for row in input_ids]
        stopped = [any(text in each for text in self._texts) for each in new]
        return torch.tensor(stopped, device=input_ids.device)


class _RequireNumbers(LogitsProcessor):  # type: ignore[misc]
    """Raises NotFiniteError where the model computes no number; the highest of them would be a token."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if bool(scores.isnan().any()):
            raise NotFiniteError
        return scores
