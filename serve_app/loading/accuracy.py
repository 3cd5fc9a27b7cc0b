"""Compare a model's predictions in another dtype with those in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

# Vectors with a lower cosine similarity than this are different predictions.
_LEAST_COSINE: Final = 0.99

# The texts for the comparison: several subjects, tones and lengths.
CHECK_TEXTS: Final = (
    "I love this, it works better than I had hoped.",
    "The delivery was late and the box was broken.",
    "It rained all night.",
    "Ada Lovelace wrote the first program for a machine that was never built.",
    "No.",
    "The home team scored twice in the last ten minutes and won the match.",
    "Parliament will vote on the new budget on Thursday, and nobody knows how it will end.",
    "What a waste of an evening: two hours of noise, no story, and an ending that made the audience laugh.",
    "Boil the rice for twelve minutes, then let it rest under a cloth.",
    "The orchestra played the slow movement so softly that one could hear the rain on the roof of the hall.",
    "Is there a train to Paris after nine?",
    "The company raised its forecast because demand for batteries grew faster than expected.",
    "My phone does not switch on any more.",
    "She thanked the nurse, took her coat, and walked home through the park, happier than in weeks.",
    "Telescopes on the ground look through the air, which blurs what they see; those in space do not.",
    "Nothing special, but the price is fair.",
)


@dataclass(frozen=True)
class AccuracyCheck:
    """How predictions in `dtype` differ from those in float32.

    `greatest_difference` is the largest one of a score, or of a component of a vector. `changed_predictions`
    counts the texts with another label, or with a vector of another direction.
    """

    dtype: str
    texts: int
    greatest_difference: float
    changed_predictions: int

    @property
    def description(self) -> dict[str, Any]:
        """The check's members in the model's metadata."""
        return {
            "dtype": self.dtype,
            "texts": self.texts,
            "greatest_difference": self.greatest_difference,
            "changed_answers": self.changed_predictions,
        }

    def __str__(self) -> str:
        return (
            f"{self.dtype} differs from float32 by {self.greatest_difference:.2g} at most and changes "
            f"{self.changed_predictions} of {self.texts} answers"
        )


def compare(
    dtype: str, expected: Sequence[torch.Tensor], got: Sequence[torch.Tensor], *, labelled: bool
) -> AccuracyCheck:
    """Compare scores of shape (…, labels), or vectors of shape (width,), one for each text."""
    pairs = list(zip(expected, got, strict=True))
    same = _same_labels if labelled else _same_direction
    return AccuracyCheck(
        dtype,
        len(pairs),
        max(float((one - other).abs().max()) for one, other in pairs),
        sum(not same(one, other) for one, other in pairs),
    )


def _same_labels(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one.argmax(-1), other.argmax(-1)))


def _same_direction(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float(torch.cosine_similarity(one, other, dim=-1)) >= _LEAST_COSINE
