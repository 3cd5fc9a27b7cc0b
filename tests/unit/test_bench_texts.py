import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.texts import make_texts, sorted_batches


@pytest.mark.parametrize(("kind", "fewest", "most"), [("short", 5, 24), ("mixed", 8, 256)])
def test_texts_have_the_lengths_of_their_kind(kind, fewest, most):
    words = [len(text.split()) for text in make_texts(kind, 2000)]
    assert (min(words), max(words)) == (fewest, most)


def test_texts_are_the_same_at_every_run():
    assert make_texts("mixed", 50) == make_texts("mixed", 50)
    assert make_texts("mixed", 50)[:10] == make_texts("mixed", 10)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 64), st.integers(1, 32))
def test_batches_hold_every_text_once_and_are_sorted_within_their_window(lengths, window, batch):
    batches = sorted_batches(lengths, window, batch)
    assert sorted(at for each in batches for at in each) == list(range(len(lengths)))
    for each in batches:
        assert len(each) <= batch
        assert len({at // window for at in each}) == 1
        assert [lengths[at] for at in each] == sorted(lengths[at] for at in each)
