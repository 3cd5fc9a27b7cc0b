"""Which ids of clients are taken."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.http.request_id import id_of

NEW = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize("given", ["a", "7", "req-1_2.B", "x" * 128, "550e8400-e29b-41d4-a716-446655440000"])
def test_an_id_that_fits_into_a_log_is_kept(given):
    assert id_of(given) == given


@pytest.mark.parametrize(
    "given", [None, "", "x" * 129, "a b", "a\n", "\na", "a\r\nx: y", "ü", "{}", '"', "a/b", "\x00", "Ⅷ", "٣"]
)
def test_any_other_is_replaced(given):
    assert NEW.fullmatch(id_of(given))


@given(st.text())
def test_whatever_comes_the_id_can_be_logged(given):
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", id_of(given))
