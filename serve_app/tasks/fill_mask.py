"""fill-mask: the tokens that fit in place of a mask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from transformers import AutoModelForMaskedLM

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError, Output, Prediction, Progress
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import FillMaskParameters
from serve_app.tasks.pretrained_task import PretrainedTask, require_finite

# Each fill is a text of its own, and they are made one after the other.
MOST_FILLS: Final = 1000


class FillMask(PretrainedTask):
    """A masked language model. Each mask is filled while the other masks stay."""

    task: ClassVar = Task.FILL_MASK
    auto_class = AutoModelForMaskedLM
    outputs: ClassVar = (Output("fills", "BYTES", (-1,)),)

    def load_extras(self, folder: Path) -> None:
        if self._pretrained.hf_tokenizer.mask_token is None:
            raise ModelLoadError(f"{folder} has a tokenizer without a mask token; {Task.FILL_MASK} needs one")
        # The tokenizer makes this list anew each time that it is asked.
        self._special = frozenset(self._pretrained.hf_tokenizer.all_special_ids)

    @property
    def warmup_text(self) -> str:
        return f"ready {self._pretrained.hf_tokenizer.mask_token}"

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "mask": self._pretrained.hf_tokenizer.mask_token}

    def proof_text(self, text: str) -> str:
        # The mask is in front, where no truncation removes it.
        return f"{self._pretrained.hf_tokenizer.mask_token} {text}"

    def sequences(
        self, text: str, parameters: FillMaskParameters, limit: InputLimit
    ) -> Sequence[EncodedSequence]:
        encoded = EncodedSequence(self._pretrained.encode(text, limit))
        if not self._masks(encoded):
            mask = self._pretrained.hf_tokenizer.mask_token
            raise InvalidInputError(f"the text has no {mask} within the first {encoded.length} tokens")
        fills = len(self._masks(encoded)) * parameters.top_k
        if fills > MOST_FILLS:
            raise InvalidInputError(
                f"parameters.top_k: got {parameters.top_k}, for {len(self._masks(encoded))} masks; one "
                f"text has at most {MOST_FILLS} fills",
                limit=MOST_FILLS,
            )
        return [replace(encoded, group=parameters.top_k)]

    def answer_characters(
        self, text: str, encoded: Sequence[EncodedSequence], parameters: FillMaskParameters
    ) -> int:
        return len(self._masks(encoded[0])) * parameters.top_k * len(text)

    def _masks(self, encoded: EncodedSequence) -> list[int]:
        mask = self._pretrained.hf_tokenizer.mask_token_id
        return [index for index, token in enumerate(encoded.features["input_ids"]) if token == mask]

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the best probabilities at the masks and their tokens: (2, masks, top_k) each."""
        outputs = []
        for probabilities in self._probabilities(batch):
            best = probabilities.topk(min(self.group_of(batch), probabilities.shape[-1]))
            # A float32 holds the number of any token.
            outputs.append(torch.stack([best.values, best.indices.float()]).cpu())
        return outputs

    def proof_answers(self, batch: Sequence[EncodedSequence]) -> list[torch.Tensor]:
        with torch.inference_mode():
            answers = [each.cpu() for each in self._probabilities(batch)]
        require_finite(answers)
        return answers

    def _probabilities(self, batch: Sequence[EncodedSequence]) -> Iterator[torch.Tensor]:
        """Yield the probabilities at the masks, of shape (masks, vocabulary), for each sequence."""
        logits = self._pretrained.run(self._pretrained.collate(batch)).logits
        for row, encoded in zip(logits, batch, strict=True):
            yield row[self._masks(encoded)].float().softmax(-1)

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: FillMaskParameters,
    ) -> Prediction:
        positions = self._masks(encoded[0])
        fills = []
        for number, (position, scores, tokens) in enumerate(
            zip(positions, *outputs[0].tolist(), strict=True)
        ):
            for score, token in zip(scores, tokens, strict=True):
                fills.append(self._fill(encoded[0], position, int(token)) | {"score": score, "mask": number})
        return {"fills": fills}

    def _fill(self, encoded: EncodedSequence, position: int, token: int) -> dict[str, Any]:
        tokenizer = self._pretrained.hf_tokenizer
        filled = [*encoded.features["input_ids"]]
        filled[position] = token
        return {
            "token": tokenizer.decode([token]).strip(),
            "token_id": token,
            "sequence": tokenizer.decode(
                [
                    identifier
                    for identifier in filled
                    if identifier == tokenizer.mask_token_id or identifier not in self._special
                ]
            ),
        }
