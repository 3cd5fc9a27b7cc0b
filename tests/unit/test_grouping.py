"""Which rows attend together."""

from hypothesis import given
from hypothesis import strategies as st

from serve_app.decoders.grouping import _ALONE, _TOGETHER, rows_alone


def microseconds(places, lengths, alone):
    """Return what a step takes in which the rows `alone` attend alone."""
    together = [row for row in range(len(places)) if row not in alone]
    cost = sum(_ALONE[0] + _ALONE[1] * lengths[row] for row in alone)
    if together:
        own = [places[row] for row in together]
        longest = max(lengths[row] for row in together)
        cost += (max(own) - min(own) + 1) * (_TOGETHER[0] + _TOGETHER[1] * longest)
    return cost


rows = st.dictionaries(
    st.integers(0, 63), st.one_of(st.integers(1, 40), st.integers(1, 8192)), max_size=12
).map(lambda found: (list(found), list(found.values())))


@given(rows)
def test_however_many_of_the_longest_attend_alone_no_other_number_is_cheaper(found):
    places, lengths = found
    alone = rows_alone(places, lengths)
    assert alone == sorted(set(alone))
    longest_first = sorted(range(len(places)), key=lambda row: -lengths[row])
    costs = [microseconds(places, lengths, longest_first[:count]) for count in range(len(places) + 1)]
    assert abs(microseconds(places, lengths, alone) - min(costs)) < 1e-6
    assert sorted(lengths[row] for row in alone) == sorted(lengths)[len(lengths) - len(alone) :]


def test_a_step_without_rows_has_none_alone():
    assert rows_alone([], []) == []


def test_a_long_one_does_not_make_short_ones_pay():
    assert rows_alone([0, 1, 2, 3], [10, 8000, 12, 11]) == [1]


def test_places_between_two_rows_are_not_read_for_them():
    assert rows_alone([0, 255], [30, 30]) == [0]
