"""Which parts of a text answer a question: from the logits of starts and ends to spans of tokens.

The algorithm is that of QuestionAnsweringPipeline in transformers 4.57, `select_starts_ends` and
`decode_spans`, with its arithmetic in float32.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Tokens that cannot be in an answer get this logit.
MASKED: Final = -10000.0
# What the pipeline starts with where a question may have no answer.
NO_NULL_SCORE: Final = 1_000_000.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Spans:
    """The best spans of one window, best first; `null_score` is the score of there being none in it."""

    starts: list[int]
    ends: list[int]
    scores: list[float]
    null_score: float


def probabilities(logits: Floats, allowed: NDArray[np.bool_]) -> Floats:
    """Return the probability of each token, (tokens,); of those that are not allowed about 0."""
    masked = np.where(allowed, logits, np.float32(MASKED))
    raised = np.exp(masked - masked.max())
    return np.asarray(raised / raised.sum(), dtype=np.float32)


def best_spans(logits: Floats, allowed: NDArray[np.bool_], count: int, longest: int) -> Spans:
    """Return up to `count` spans of at most `longest` tokens that start and end at allowed ones.

    `logits` are those of starts and ends: (2, tokens). The first token stands for "no answer".
    """
    start, end = (probabilities(row, allowed) for row in logits)
    null_score = float(start[0] * end[0])
    start[0] = end[0] = 0.0
    # A span's score is the product of the probabilities of its ends: (starts, ends).
    candidates = np.tril(np.triu(np.outer(start, end)), longest - 1)
    best = _best(candidates.ravel(), count)
    starts, ends = np.unravel_index(best, candidates.shape)
    fits = allowed[starts] & allowed[ends]
    starts, ends = starts[fits], ends[fits]
    return Spans(starts.tolist(), ends.tolist(), candidates[starts, ends].tolist(), null_score)


def _best(scores: Floats, count: int) -> NDArray[Any]:
    """Return the places of the highest scores, highest first."""
    if count == 1:
        return np.asarray([scores.argmax()])
    if len(scores) < count:
        return np.argsort(-scores)
    some = np.argpartition(-scores, count)[:count]
    return np.asarray(some[np.argsort(-scores[some])])
