"""text-generation: a causal model continues a text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from transformers import AutoModelForCausalLM

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError, Prediction
from serve_app.engine.continuous.continuation import Continuation, Continued
from serve_app.engine.generation import Chat, GenerationRequest
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import TextGenerationParameters
from serve_app.tasks.generation import GeneratingTask
from serve_app.tasks.parts.continuations import (
    CHAT_TOKENS,
    Continuations,
    limit_beside,
    refuse_unless_in_steps,
    states_other_way,
)

# Its layers look at both sides, and `generate` hides from them what comes later.
_HIDES_LATER_TOKENS: Final = ("xlnet",)
# Options of `generate` that ask which tokens were there before.
_LOOKS_BACK: Final = ("repetition_penalty", "no_repeat_ngram_size")


class TextGeneration(GeneratingTask):
    """A causal language model; texts with the same parameters share a batch."""

    task: ClassVar = Task.TEXT_GENERATION
    auto_class = AutoModelForCausalLM
    repeats_prompt: ClassVar[bool] = True

    def load_extras(self, folder: Path) -> None:
        super().load_extras(folder)
        # What a text ends with is continued, so a prompt that is too long loses its beginning.
        self._pretrained.hf_tokenizer.truncation_side = "left"
        self.in_steps = not states_other_way(self._pretrained.model.generation_config)
        self.steps = self._pretrained.steps
        self._continuations = Continuations(self._pretrained, self._stop_texts) if self.steps else None

    def drop(self) -> None:
        super().drop()
        self.steps, self._continuations = None, None

    def check_model(self) -> None:
        """Refuse a model in which a later token changes what is said of the earlier ones."""
        model = self._pretrained.model
        [sequence] = self.proof_sequences(
            ["the first words of a text and some more of them"], self.max_tokens
        )
        ids = torch.tensor([sequence.features["input_ids"]], device=self._pretrained.device)
        if model.config.model_type in _HIDES_LATER_TOKENS or ids.shape[1] < 2:
            return
        with torch.inference_mode():
            whole, part = model(input_ids=ids).logits[0, -2], model(input_ids=ids[:, :-1]).logits[0, -1]
        if not torch.allclose(whole.float(), part.float(), rtol=1e-2, atol=1e-2 * float(part.abs().max())):
            raise ModelLoadError(
                f"{self._folder} was not trained for {self.task}: {type(model).__name__} looks at what comes "
                "after a token too; correct spec.model.task or the folder"
            )

    @property
    def description(self) -> Mapping[str, Any]:
        steps = self._pretrained.steps
        if steps is None:
            return super().description
        return {
            **super().description,
            "batching": "continuous",
            "cache_bytes_per_token": steps.bytes_per_token,
            "chat": bool(self._pretrained.hf_tokenizer.chat_template),
        }

    @property
    def default_new_tokens(self) -> int:
        # A prompt needs room too.
        return max(1, min(super().default_new_tokens, self.max_tokens // 2))

    def sequences(
        self, text: str, parameters: TextGenerationParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        """Return the prompt, which must fit into the model together with the new tokens."""
        options = self.options(parameters)
        stated = self._pretrained.model.generation_config
        new = options.get("max_new_tokens", stated.max_new_tokens)
        # Without a number of new tokens, the model states one of all tokens, and the prompt comes first.
        features = self._pretrained.encode(text, limit_beside(limit, new, self.max_tokens))
        length = len(features["input_ids"])
        if new is None:
            options["max_new_tokens"] = max(1, min(stated.max_length, self.max_tokens) - length)
        if self._continuations is not None:
            return [self._continuations.of(features["input_ids"], options, parameters)]
        refuse_unless_in_steps(parameters)
        group = self.group(options, length, _LOOKS_BACK)
        return [EncodedSequence(features, group, self.most_new_tokens(options))]

    def continuation(
        self, request: GenerationRequest, parameters: TextGenerationParameters, limit: InputLimit
    ) -> Continuation:
        made = self._continuations
        if made is None:
            raise InvalidInputError(
                "this model is generated in whole batches, without streams and chats; send it to /predict"
            )
        options = self.options(parameters)
        prompt = request.prompt
        new = options.get("max_new_tokens")
        if new is None and not isinstance(prompt, Chat):
            new = self._pretrained.model.generation_config.max_new_tokens
        limit = limit_beside(limit, new, made.capacity)
        if isinstance(prompt, str):
            ids = self._pretrained.encode(prompt, limit)["input_ids"]
        elif isinstance(prompt, Chat):
            ids = made.chat_tokens(prompt, limit)
        else:
            ids = made.known_tokens(prompt, limit)
        if new is None:
            options["max_new_tokens"] = min(CHAT_TOKENS, made.capacity - len(ids))
        return made.of(
            ids,
            options,
            parameters,
            ends=request.stop_token_ids,
            top_logprobs=request.top_logprobs,
        )

    def token_text(self, token: int) -> str:
        assert self._continuations is not None
        return self._continuations.token_text(token)

    def proof_answers(self, batch: Sequence[EncodedSequence]) -> list[torch.Tensor]:
        steps = self._pretrained.steps
        if steps is None:
            return super().proof_answers(batch)
        return steps.generated([each for each in batch if isinstance(each, Continuation)])

    def inputs(self, batch: Sequence[EncodedSequence]) -> dict[str, torch.Tensor]:
        tensors = self._pretrained.collate(batch, side="left")
        tensors.pop("token_type_ids", None)
        return {**tensors, "pad_token_id": self._pretrained.hf_tokenizer.pad_token_id}

    def new_tokens(self, batch: Sequence[EncodedSequence], generated: torch.Tensor) -> torch.Tensor:
        return generated[:, max(each.length for each in batch) :]

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: TextGenerationParameters,
    ) -> Prediction:
        [output] = outputs
        ids = list(output.tokens) if isinstance(output, Continued) else output.tolist()
        new = self._decoded(ids)
        if isinstance(output, Continued) and output.text is not None and not parameters.return_full_text:
            # Without the blank between prompt and continuation, as where no stop text was looked for.
            new = output.text if new.startswith(" ") else output.text.removeprefix(" ")
        if not parameters.return_full_text:
            return {"generated_text": new}
        if isinstance(output, Continued) and output.text is not None:
            return {"generated_text": text + output.text}
        # A tokenizer may leave out the blank in front of the first of several tokens.
        prompt = encoded[0].features["input_ids"]
        before, whole = self._decoded(prompt), self._decoded([*prompt, *ids])
        return {"generated_text": text + (whole[len(before) :] if whole.startswith(before) else new)}

    def _decoded(self, ids: Sequence[int]) -> str:
        decoded: Any = self._pretrained.hf_tokenizer.decode(ids, skip_special_tokens=True)
        return str(decoded)
