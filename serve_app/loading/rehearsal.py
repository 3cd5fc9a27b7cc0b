"""Let a model answer the texts of its proof: alone, in batches of mixed lengths, and of equal lengths."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import torch

from serve_app.contract import Task
from serve_app.engine.base import EncodedSequence
from serve_app.loading.proof import CHECK_TEXTS, Changed, Difference, compare
from serve_app.loading.transformers_model import NO_LIMIT, TransformersModel

# How many short texts, and how many of full length; fewer for a large model.
_TEXTS: Final = (len(CHECK_TEXTS), 2)
_FEWER_TEXTS: Final = (6, 1)
# How much may be computed for one text: about 2 s of one core. Shorter texts then stand for the longest.
_MOST_OPERATIONS: Final = 1e11
_SHORTEST_LONG: Final = 128
# Some models state no limit. Attention may need memory by the square of the length: 12 heads of 2048 tokens
# have 200 MB of float32 numbers.
_LONGEST: Final = 2048
# By how many tokens the limit that a model states may be wrong, because its first position is not 0.
_FEWER_TOKENS: Final = (1, 2, 4, 8)
_PAIRS: Final = 4


class ProvedTask(Protocol):
    """What a proof needs of a task."""

    auto_class: Any
    # Whether `auto` may choose a shorter dtype on a CPU, and whether our own layers suit the task.
    compared: bool
    own_layers: bool
    # Whether it may be computed in steps.
    in_steps: bool

    @property
    def task(self) -> Task: ...

    @property
    def max_tokens(self) -> int: ...

    def use(self, model: TransformersModel) -> None:
        """Answer with this model from now on; raise ModelLoadError if it is not right for the task."""

    def drop(self) -> None:
        """Let go of the model, before another one takes its memory."""

    def check_model(self) -> None:
        """Raise ModelLoadError if transformers' own model, in use now, is none for the task."""

    def proof_sequences(self, texts: Sequence[str], max_tokens: int) -> list[EncodedSequence]:
        """Return one sequence for each text, truncated."""

    def proof_answers(self, batch: Sequence[EncodedSequence]) -> list[torch.Tensor]:
        """Return the answers of the model in use for a batch, one tensor for each sequence."""

    def changed(self, *, exact: bool) -> Changed:
        """Return the rule for answers that are not the same: up to rounding, or for a shorter dtype."""


class Rehearsal:
    """The texts of one model's proof, encoded anew for each way to serve it."""

    def __init__(self, task: ProvedTask, model: Any, *, fewer: bool) -> None:
        self._task = task
        self._short, self._long = _FEWER_TEXTS if fewer else _TEXTS
        affordable = int(_MOST_OPERATIONS / (2 * max(1, _computing_parameters(model))))
        longest = _LONGEST if task.max_tokens >= NO_LIMIT else task.max_tokens
        self._long_tokens = min(longest, max(_SHORTEST_LONG, affordable))
        # How many tokens the model takes if that is fewer than it states.
        self.max_tokens: int | None = None

    def within_limit(self) -> list[torch.Tensor]:
        """Return the answers alone, of texts that are shorter than the stated limit if that is too high."""
        try:
            return self.alone()
        except Exception:
            stated = self._task.max_tokens
            if self._long_tokens < stated:
                raise
            for fewer in _FEWER_TOKENS:
                self._long_tokens = stated - fewer
                if self._long_tokens > 0 and self._succeeds():
                    self.max_tokens = self._long_tokens
                    return self.alone()
            self._long_tokens = stated
            raise

    def alone(self) -> list[torch.Tensor]:
        """Return the answer to each text by itself."""
        short, long = self._sequences()
        return [self._task.proof_answers([each])[0] for each in (*short, *long)]

    def short_batch(self, expected: Sequence[torch.Tensor], rule: Changed) -> Difference:
        """Compare the short texts, all in one batch."""
        short, _ = self._sequences()
        return compare(expected[: len(short)], self._task.proof_answers(short), rule)

    def mixed_batches(self, expected: Sequence[torch.Tensor], rule: Changed) -> Difference:
        """Compare all short texts in one batch, and a short one with one of full length in another."""
        short, long = self._sequences()
        pair = self._task.proof_answers([long[0], short[0]])
        together = compare([expected[len(short)], expected[0]], pair, rule)
        return self.short_batch(expected, rule).with_greatest_of(together)

    def equal_batches(self, expected: Sequence[torch.Tensor], rule: Changed) -> Difference:
        """Compare short texts, each beside another one that is cut to its length."""
        short, long = self._sequences()
        several = short[:_PAIRS]
        got = [self._task.proof_answers([each, _cut(long[0], each)])[0] for each in several]
        return compare(expected[: len(several)], got, rule)

    def _succeeds(self) -> bool:
        _, long = self._sequences()
        try:
            self._task.proof_answers(long[:1])
        except Exception:
            return False
        return True

    def _sequences(self) -> tuple[list[EncodedSequence], list[EncodedSequence]]:
        """Return the short texts and those of full length."""
        words = " ".join(CHECK_TEXTS).split()
        many = " ".join(words * (1 + self._long_tokens // len(words)))
        # The second one begins elsewhere.
        long = [many, " ".join(reversed(many.split()))][: self._long]
        short = self._task.proof_sequences(CHECK_TEXTS[: self._short], self._long_tokens)
        return short, self._task.proof_sequences(long, self._long_tokens)


def _computing_parameters(model: Any) -> int:
    """Return the number of parameters that take part for each token; of an embedding, one row does."""
    rows = sum(each.weight.numel() for each in model.modules() if isinstance(each, torch.nn.Embedding))
    return int(sum(each.numel() for each in model.parameters()) - rows)


def _cut(sequence: EncodedSequence, like: EncodedSequence) -> EncodedSequence:
    """Return the sequence without tokens before its last one, so that it is as long as `like`."""
    fewer = max(0, like.length - 1)
    features: Mapping[str, list[int]] = {
        name: [*values[:fewer], values[-1]] for name, values in sequence.features.items()
    }
    return EncodedSequence(features, like.group)
