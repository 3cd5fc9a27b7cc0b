"""Split a queue into batches within limits, at the least cost. Pure; it knows only tokens and groups."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar


class BatchItem(Protocol):
    """What the planner needs to know of a sequence: its number of tokens, and its group.

    Tokens that are still to be generated count too. Sequences of different groups never share a batch.
    """

    @property
    def tokens(self) -> int: ...

    @property
    def group(self) -> Hashable: ...


@dataclass(frozen=True)
class BatchLimits:
    """Bounds of one batch: sequences, tokens with padding, and how long an idle model may wait for more.

    `overhead_tokens` is the fixed cost of a batch as a number of tokens; less padding than that is cheaper
    than one more batch. `padded` says whether padding costs anything.
    """

    max_size: int
    max_tokens: int
    max_wait_seconds: float
    overhead_tokens: int = 32
    padded: bool = True


class Entry(Protocol):
    """What waits in the queue: a sequence, and what belongs to it."""

    @property
    def sequence(self) -> BatchItem: ...


AnyEntry = TypeVar("AnyEntry", bound=Entry)


def plan_batches(queue: Sequence[AnyEntry], limits: BatchLimits) -> list[list[AnyEntry]]:
    """Split `queue` into batches of one group each, at the least cost within `limits`.

    With padding, a batch costs its size times its longest sequence, plus the overhead, so sequences are
    sorted by their tokens. Without padding, full batches in the order of arrival cost least. A sequence
    above the token limit gets a batch of its own.
    """
    groups: dict[Hashable, list[AnyEntry]] = {}
    for entry in queue:
        groups.setdefault(entry.sequence.group, []).append(entry)
    batches: list[list[AnyEntry]] = []
    for group in groups.values():
        if limits.padded:
            group.sort(key=lambda entry: entry.sequence.tokens)
        find_splits = _min_cost_splits if limits.padded else _greedy_splits
        splits = find_splits([entry.sequence.tokens for entry in group], limits)
        batches += [group[start:end] for start, end in pairwise(splits)]
    return batches


def _min_cost_splits(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """Return where the batches of sorted `lengths` begin and end, by dynamic programming."""
    # For each number of sequences: the least cost of running them, and where the last batch of them starts.
    costs, starts = [0], [0]
    for end, longest in enumerate(lengths, start=1):
        fitting = max(1, min(limits.max_size, limits.max_tokens // max(longest, 1), end))
        cost, size = min(
            (costs[end - size] + limits.overhead_tokens + longest * size, size)
            for size in range(1, fitting + 1)
        )
        costs.append(cost)
        starts.append(end - size)
    splits = [len(lengths)]
    while splits[-1]:
        splits.append(starts[splits[-1]])
    return splits[::-1]


def _greedy_splits(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """Return where batches begin and end if each is as large as it may be."""
    splits, tokens = [0], 0
    for at, length in enumerate(lengths):
        size = at - splits[-1]
        if size and (size == limits.max_size or tokens + length > limits.max_tokens):
            splits.append(at)
            tokens = 0
        tokens += length
    return [*splits, len(lengths)]
