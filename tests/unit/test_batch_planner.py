from itertools import zip_longest
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.batch_planner import BatchLimits, plan_batches


def entry(tokens, group=None):
    return SimpleNamespace(sequence=SimpleNamespace(tokens=tokens, group=group))


entries = st.builds(entry, st.integers(1, 40), st.sampled_from("ab"))


@given(st.lists(entries, max_size=30), st.integers(1, 6), st.integers(1, 80))
def test_the_queue_is_parted_into_batches_of_one_group_within_the_limits(waiting, max_size, max_tokens):
    batches = plan_batches(waiting, BatchLimits(max_size, max_tokens, 0))
    placed = [id(entry) for batch in batches for entry in batch]
    assert sorted(placed) == sorted(id(entry) for entry in waiting)
    for batch in batches:
        lengths = [entry.sequence.tokens for entry in batch]
        assert len({entry.sequence.group for entry in batch}) == 1
        assert lengths == sorted(lengths)
        assert 1 <= len(batch) <= max_size
        assert len(batch) == 1 or max(lengths) * len(batch) <= max_tokens


@given(st.lists(entries, max_size=30), st.integers(1, 6), st.integers(1, 80))
def test_without_padding_batches_are_full_and_in_order(waiting, max_size, max_tokens):
    limits = BatchLimits(max_size, max_tokens, 0, padded=False)
    batches = plan_batches(waiting, limits)
    for group in "ab":
        of_group = [batch for batch in batches if batch[0].sequence.group == group]
        members = [entry for entry in waiting if entry.sequence.group == group]
        assert [id(entry) for batch in of_group for entry in batch] == [id(entry) for entry in members]
        for batch, following in zip_longest(of_group, of_group[1:]):
            tokens = [entry.sequence.tokens for entry in batch]
            assert len(batch) == 1 or (len(batch) <= max_size and sum(tokens) <= max_tokens)
            if following:
                more = sum(tokens) + following[0].sequence.tokens
                assert len(batch) == max_size or more > max_tokens


def cost(batches, limits):
    longest = [max(entry.sequence.tokens for entry in batch) for batch in batches]
    return sum(
        limits.overhead_tokens + most * len(batch) for most, batch in zip(longest, batches, strict=True)
    )


def all_splits(entries):
    """Yield every way to split a list into consecutive parts."""
    if not entries:
        yield []
    for size in range(1, len(entries) + 1):
        yield from ([entries[:size], *rest] for rest in all_splits(entries[size:]))


def fits(batch, limits):
    tokens = max(entry.sequence.tokens for entry in batch) * len(batch)
    return len(batch) == 1 or (len(batch) <= limits.max_size and tokens <= limits.max_tokens)


@given(st.lists(entries, max_size=7), st.integers(1, 4), st.integers(1, 80), st.integers(0, 60))
def test_no_other_split_of_the_sorted_queue_costs_less(waiting, max_size, max_tokens, overhead):
    limits = BatchLimits(max_size, max_tokens, 0, overhead)
    for group in "ab":
        members = [entry for entry in waiting if entry.sequence.group == group]
        in_order = sorted(members, key=lambda entry: entry.sequence.tokens)
        possible = [each for each in all_splits(in_order) if all(fits(batch, limits) for batch in each)]
        assert cost(plan_batches(members, limits), limits) == min(cost(each, limits) for each in possible)


@pytest.mark.parametrize(("overhead", "batches"), [(10, [[2, 3], [40]]), (100, [[2, 3, 40]])])
def test_padding_is_accepted_as_far_as_a_further_batch_costs_more(overhead, batches):
    waiting = [entry(tokens) for tokens in (40, 2, 3)]
    found = plan_batches(waiting, BatchLimits(9, 1000, 0, overhead))
    assert [[entry.sequence.tokens for entry in batch] for batch in found] == batches


def test_an_empty_queue_makes_no_batch():
    assert plan_batches([], BatchLimits(1, 1, 0)) == []
