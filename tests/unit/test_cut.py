from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from serve_app.batcher import BatchLimits, Waiting, cut

lengths = st.integers(1, 40)
entries = st.builds(
    lambda length, group: Waiting(SimpleNamespace(length=length, group=group), output=None),
    lengths,
    st.sampled_from("ab"),
)


@given(st.lists(entries, max_size=30), st.integers(1, 6), st.integers(1, 80))
def test_the_queue_is_parted_into_batches_of_one_group_within_the_limits(waiting, max_size, max_tokens):
    batches = cut(waiting, BatchLimits(max_size, max_tokens, 0))
    placed = [id(entry) for batch in batches for entry in batch]
    assert sorted(placed) == sorted(id(entry) for entry in waiting)
    for batch in batches:
        lengths = [entry.sequence.length for entry in batch]
        assert len({entry.sequence.group for entry in batch}) == 1
        assert lengths == sorted(lengths)
        assert 1 <= len(batch) <= max_size
        assert len(batch) == 1 or max(lengths) * len(batch) <= max_tokens


@given(st.lists(entries, max_size=30), st.integers(1, 6), st.integers(1, 80))
def test_no_two_batches_in_a_row_would_have_fitted_into_one(waiting, max_size, max_tokens):
    batches = cut(waiting, BatchLimits(max_size, max_tokens, 0))
    for batch, following in zip(batches, batches[1:], strict=False):
        if batch[0].sequence.group == following[0].sequence.group:
            tokens = following[0].sequence.length * (len(batch) + 1)
            assert len(batch) == max_size or tokens > max_tokens


def test_an_empty_queue_makes_no_batch():
    assert cut([], BatchLimits(1, 1, 0)) == []
