"""fill-mask: the tokens that fit in place of a mask."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from transformers import AutoModelForMaskedLM

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence, InputLimit, ModelLoadError, Output, Prediction, Progress
from serve_app.http.errors import InvalidInputError
from serve_app.parameters import FillMaskParameters
from serve_app.tasks.pretrained_task import PretrainedTask

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
        return [encoded]

    def _masks(self, encoded: EncodedSequence) -> list[int]:
        mask = self._pretrained.hf_tokenizer.mask_token_id
        return [index for index, token in enumerate(encoded.features["input_ids"]) if token == mask]

    def run(self, batch: Sequence[EncodedSequence], progress: Progress) -> Sequence[Any]:
        """Return the probabilities at the masks, of shape (masks, vocabulary), for each sequence."""
        logits = self._pretrained.run(self._pretrained.collate(batch)).logits
        return [
            row[self._masks(encoded)].float().softmax(-1).cpu()
            for row, encoded in zip(logits, batch, strict=True)
        ]

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        return output

    def decode(
        self,
        text: str,
        encoded: Sequence[EncodedSequence],
        outputs: Sequence[torch.Tensor],
        parameters: FillMaskParameters,
    ) -> Prediction:
        positions = self._masks(encoded[0])
        fills = []
        for number, (position, row) in enumerate(zip(positions, outputs[0], strict=True)):
            best = row.topk(min(parameters.top_k, len(row)))
            for score, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                fills.append(self._fill(encoded[0], position, token) | {"score": score, "mask": number})
        return {"fills": fills}

    def _fill(self, encoded: EncodedSequence, position: int, token: int) -> dict[str, Any]:
        tokenizer = self._pretrained.hf_tokenizer
        filled = [*encoded.features["input_ids"]]
        filled[position] = token
        return {
            "token": tokenizer.decode([token]).strip(),
            "sequence": tokenizer.decode(
                [
                    identifier
                    for identifier in filled
                    if identifier == tokenizer.mask_token_id or identifier not in self._special
                ]
            ),
        }
