"""Texts that every model answers before it serves, and how far answers may differ from the right ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch

# Several subjects, tones and lengths.
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

# Rounding in float32, as a part of the greatest number of an answer, or of 1.
_ROUNDING: Final = 1e-3
# What a shorter dtype may change: a probability; the only one of a head, by which texts are ranked; a
# vector's direction; a token's label that was almost another; as a part of the best answer's score, that of
# an answer that was almost the best.
_PROBABILITY: Final = 0.1
_RANKING: Final = 0.02
_LEAST_COSINE: Final = 0.99
_CLOSE_CALL: Final = 0.1
_ALMOST: Final = 0.5

Changed = Callable[[torch.Tensor, torch.Tensor], bool]


@dataclass(frozen=True)
class Difference:
    """How answers differ from the right ones: the greatest difference of a number, and texts that changed."""

    texts: int
    greatest: float
    changed: int

    def with_greatest_of(self, other: "Difference") -> "Difference":
        """Return the same texts with what changed in either comparison."""
        # A text that changes in both is one.
        changed = min(self.texts, self.changed + other.changed)
        return Difference(self.texts, max(self.greatest, other.greatest), changed)


def compare(expected: Sequence[torch.Tensor], got: Sequence[torch.Tensor], changed: Changed) -> Difference:
    """Compare answers, one tensor for each text, by the rule `changed`."""
    pairs = list(zip(expected, got, strict=True))
    greatest = max((_greatest(one, other) for one, other in pairs), default=0.0)
    return Difference(len(pairs), greatest, sum(changed(one, other) for one, other in pairs))


def _greatest(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def rounding_changed(expected: torch.Tensor, got: torch.Tensor) -> bool:
    """Return whether numbers differ by more than float32 rounds."""
    bound = _ROUNDING * max(1.0, float(expected.abs().max()))
    # A comparison with NaN is false.
    return not _greatest(expected, got) <= bound


def label_changed(expected: torch.Tensor, got: torch.Tensor) -> bool:
    """Of probabilities that add up to 1: another label is the highest, or one has moved far."""
    other_label = not torch.equal(expected.argmax(-1), got.argmax(-1))
    return other_label or not _greatest(expected, got) <= _PROBABILITY


def side_changed(expected: torch.Tensor, got: torch.Tensor) -> bool:
    """Of independent probabilities: one is on the other side of a half, or has moved far."""
    bound = _RANKING if expected.shape[-1] == 1 else _PROBABILITY
    other_side = not torch.equal(expected > 0.5, got > 0.5)
    return other_side or not _greatest(expected, got) <= bound


def number_changed(expected: torch.Tensor, got: torch.Tensor) -> bool:
    """Of numbers without bounds, as regression has them."""
    return not _greatest(expected, got) <= _RANKING * max(1.0, float(expected.abs().max()))


def token_label_changed(expected: torch.Tensor, got: torch.Tensor) -> bool:
    """Of probabilities for each token: one has another label, and was not almost that already."""
    chosen = got.argmax(-1, keepdim=True)
    margins = expected.max(-1, keepdim=True).values - expected.gather(-1, chosen)
    return bool((margins > _CLOSE_CALL).any()) or bool(got.isnan().any())


def answer_changed(expected: torch.Tensor, got: torch.Tensor, *, longest: int) -> bool:
    """Of the probabilities of starts and ends, (2, tokens), of answers of up to `longest` tokens.

    Another span is the answer, and was not almost that already; or the score of the answer has moved far, or
    that of there being none, for which the first token stands.
    """
    right, found = _span_scores(expected, longest), _span_scores(got, longest)
    best, chosen = float(right.max()), float(right.flatten()[found.argmax()])
    other_answer = best - chosen > _CLOSE_CALL or chosen < _ALMOST * best
    # A comparison with NaN is false.
    same_score = abs(float(found.max()) - best) <= _PROBABILITY
    same_without = _greatest(expected[:, 0].prod(), got[:, 0].prod()) <= _PROBABILITY
    return other_answer or not (same_score and same_without)


def _span_scores(probabilities: torch.Tensor, longest: int) -> torch.Tensor:
    """Return the score of each span by its first and its last token: (tokens, tokens)."""
    start, end = torch.nn.functional.pad(probabilities[:, 1:], (1, 0))
    return torch.outer(start, end).triu().tril(longest - 1)


def direction_changed(expected: torch.Tensor, got: torch.Tensor) -> bool:
    """Of vectors: they point elsewhere."""
    return not float(torch.cosine_similarity(expected, got, dim=-1)) >= _LEAST_COSINE


def generation_changed(expected: torch.Tensor, got: torch.Tensor, *, exact: bool) -> bool:
    """Of generated tokens, each followed by the logits that it was chosen by: (tokens, 1 + vocabulary).

    Both are compared up to the first token that differs, because what follows it answers another text.
    """
    changed = rounding_changed if exact else direction_changed
    for one, other in zip(expected, got, strict=False):
        if changed(one[1:], other[1:]):
            return True
        if one[0] != other[0]:
            return False
    return False
