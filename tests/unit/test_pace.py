"""How large a piece of a prompt may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.continuous.pace import MOST_TOKENS, Pace

step = st.tuples(st.floats(0, 100), st.integers(0, 64), st.integers(0, 512))


@given(st.lists(step), st.integers(1, 64))
def test_it_stays_within_bounds_whatever_was_measured(steps, generating):
    pace = Pace()
    for each in steps:
        pace.note(*each)
    assert 16 <= pace.piece_tokens(generating) <= MOST_TOKENS
    assert pace.piece_tokens(0) == MOST_TOKENS


@pytest.mark.parametrize(("single", "per_token", "expected"), [(0.01, 1e-4, 150), (0.04, 1e-3, 60)])
def test_a_piece_delays_the_others_by_one_and_a_half_steps(single, per_token, expected):
    pace = Pace()
    for _ in range(100):
        pace.note(single, 4, 0)
        pace.note(single + 50 * per_token, 4, 50)
        pace.note(80 * per_token, 0, 80)
    assert pace.piece_tokens(4) == pytest.approx(expected, abs=1)


def test_slow_prompts_go_on_nevertheless():
    pace = Pace()
    for _ in range(100):
        pace.note(0.001, 1, 0)
        pace.note(10, 1, 16)
    assert pace.piece_tokens(1) == 16


def test_a_step_without_tokens_says_nothing():
    pace = Pace()
    before = pace.piece_tokens(1)
    for _ in range(100):
        pace.note(0.0, 0, 0)
    assert pace.piece_tokens(1) == before
