"""The modules of sentence-transformers behind the encoder: how token vectors become one vector.

Names and arithmetic are those of sentence_transformers/sentence_transformer/modules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

POOLING_MODES: Final = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

# A function of vectors of shape (batch, width).
VectorModule = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pooling:
    """One or more modes, whose vectors stand one after the other.

    `skipped` is the number of tokens at the beginning that are left out, those of a prompt.
    """

    modes: tuple[str, ...]
    skipped: int = 0

    def __call__(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Reduce (batch, tokens, width) to (batch, width of all modes); padding is on the right."""
        lengths = mask.sum(dim=1)
        mask = mask.clone()
        mask[:, : self.skipped] = 0
        vectors = [_MODES[mode](hidden, mask, lengths) for mode in self.modes]
        return torch.cat(vectors, dim=-1)

    def __str__(self) -> str:
        return "+".join(self.modes)


def normalized(vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors of length 1 with the same directions."""
    return torch.nn.functional.normalize(vectors, dim=-1)


class Dense(torch.nn.Module):  # type: ignore[misc]
    """A linear layer with an activation, and optionally its input added."""

    def __init__(self, weights: Mapping[str, torch.Tensor], activation: Any, residual: bool) -> None:
        super().__init__()
        self._weight, self._bias = weights["linear.weight"], weights.get("linear.bias")
        self._activation = activation
        self._residual = residual
        self._projection = weights.get("residual.weight")

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(batch, inputs) in, (batch, outputs) out."""
        outputs = self._activation(torch.nn.functional.linear(vectors, self._weight, self._bias))
        if not self._residual:
            return outputs
        return outputs + (vectors if self._projection is None else vectors @ self._projection.T)


def _mean(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def _mean_sqrt_len(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9).sqrt()


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Weigh each token with its number, the first with 1 (Muennighoff 2022)."""
    numbers = torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)
    weights = (mask * numbers).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def _max(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).max(dim=1).values


def _first(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return _at(hidden, mask.argmax(dim=1))


def _last(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return _at(hidden, lengths - 1)


def _at(hidden: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), positions]


_MODES: Final = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
