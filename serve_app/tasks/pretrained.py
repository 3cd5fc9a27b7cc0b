"""A transformers model with its tokenizer, from text to the model's output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch

from serve_app.engine.base import Encoded, InputLimit
from serve_app.tasks.tokenizing import Tokenizing

# Tokenizers of models without a fixed context report a length of this order.
_NO_LIMIT: Final = 10**9


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode on its device, with its tokenizer."""

    model: Any
    tokenizing: Tokenizing
    device: torch.device
    # Of the weights; of the linear layers' alone where it is int8.
    dtype: str
    # Of the processor.
    threads: int
    # Whether the model runs without padding.
    packed: bool = False

    @property
    def tokenizer(self) -> Any:
        """Transformers' own."""
        return self.tokenizing.tokenizer

    @cached_property
    def max_tokens(self) -> int:
        """Smallest of the limits that the model's configuration and the tokenizer state."""
        config = self.model.config
        stated = [
            self._positions,
            getattr(config, "n_positions", None),
            getattr(self.tokenizer, "model_max_length", None),
        ]
        return min(int(limit) for limit in (*stated, _NO_LIMIT) if limit)

    @property
    def _positions(self) -> int | None:
        positions: int | None = getattr(self.model.config, "max_position_embeddings", None)
        # RoBERTa and its kin number the first token padding_idx + 1.
        embeddings = getattr(self.model.base_model, "embeddings", None)
        first = getattr(embeddings, "padding_idx", None)
        return positions - first - 1 if positions and first is not None else positions

    @property
    def description(self) -> dict[str, Any]:
        """Number format, device and architecture."""
        return {
            "architecture": type(self.model).__name__,
            "dtype": self.dtype,
            "device": str(self.device),
        }

    def encode(self, text: str, limit: InputLimit, pair: str | None = None) -> dict[str, list[int]]:
        """Return the tokenizer's lists for `text`, within `limit`; of a pair, the first is cut."""
        return self.tokenizing.lists(text, limit, pair)

    def collate(self, batch: Sequence[Encoded], side: str = "right") -> dict[str, torch.Tensor]:
        """Return tensors of shape (batch, longest), padded on `side`, on the model's device."""
        tensors = {}
        for name in batch[0].features:
            padding = self.tokenizer.pad_token_id if name == "input_ids" else 0
            rows = [torch.tensor(encoded.features[name]) for encoded in batch]
            padded = torch.nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=padding, padding_side=side
            )
            tensors[name] = padded.to(self.device)
        return tensors

    def run(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return the model's output for what `collate` returned."""
        if not self.packed:
            return self.model(**tensors)
        others = {name: tensor for name, tensor in tensors.items() if name != "attention_mask"}
        return self.model(**others, present=tensors["attention_mask"].bool())
