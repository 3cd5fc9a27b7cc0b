"""Text out of tokens, piece by piece."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.continuous.text_stream import TextStream

LETTERS = "ab é€😀"


class Bytes:
    """Tokens that are any parts of UTF-8, as in tokenizers of bytes; half a character is U+FFFD."""

    def __init__(self):
        self.vocabulary = []

    def encode(self, text, cuts=()):
        data = text.encode()
        bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        first = len(self.vocabulary)
        self.vocabulary += [data[begin:end] for begin, end in pairwise(bounds)]
        return list(range(first, len(self.vocabulary)))

    def decode(self, ids):
        return b"".join(self.vocabulary[token] for token in ids).decode("utf-8", "replace")


class Fallback:
    """Tokens that are letters, or bytes for those that it does not know, as in SentencePiece.

    As there, bytes in a row that are no UTF-8 are U+FFFD each, and a first blank is left out.
    """

    KNOWN = "ab"

    def encode(self, text, cuts=()):
        ids = []
        for letter in text.replace(" ", "_"):
            ids += [letter] if letter in "ab_" else list(letter.encode())
        return ids

    def decode(self, ids):
        text, row = "", b""
        for each in [*ids, ""]:
            if isinstance(each, int):
                row += bytes([each])
                continue
            try:
                text += row.decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(row)
            text, row = text + each, b""
        return text.replace("_", " ").removeprefix(" ")


def cut_at_first(text, stops):
    """Return the text up to the stop text that is complete first; of those, the longest."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


def streamed(tokenizer, prompt, ids, stops, sizes=(1,)):
    """Return the parts of the text, from steps of `sizes` tokens."""
    stream = TextStream(tokenizer.decode, prompt, stops)
    parts, ids, turn = [], list(ids), 0
    while ids and not stream.stopped:
        size = sizes[turn % len(sizes)]
        parts.append(stream.add(ids[:size]))
        ids, turn = ids[size:], turn + 1
    parts.append(stream.end())
    assert not stream.stopped or stream.add(tokenizer.encode("a")) == stream.end() == ""
    return parts, stream.stopped


@given(
    st.text(LETTERS, max_size=12),
    st.text(LETTERS + "\ufffd", max_size=40),
    st.lists(st.integers(0, 200), max_size=40),
    st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_the_parts_are_the_text_up_to_its_first_stop_however_it_is_cut(prompt, text, cuts, stops, sizes):
    tokenizer = Bytes()
    before, ids = tokenizer.encode(prompt, range(99)), tokenizer.encode(text, cuts)
    parts, stopped = streamed(tokenizer, before, ids, stops, sizes)
    assert ("".join(parts), stopped) == cut_at_first(text, stops)


@given(
    st.text(LETTERS, max_size=12),
    st.text(LETTERS, max_size=40),
    st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=3),
)
def test_they_are_where_unknown_letters_are_bytes(prompt, text, stops):
    tokenizer = Fallback()
    parts, stopped = streamed(tokenizer, tokenizer.encode(f"a{prompt}"), tokenizer.encode(text), stops)
    assert ("".join(parts), stopped) == cut_at_first(text, stops)


def test_a_text_comes_as_soon_as_it_is_certain():
    tokenizer = Bytes()
    ids = tokenizer.encode("a é b", range(99))
    assert streamed(tokenizer, [], ids, ())[0] == ["a", " ", "", "é", " ", "b", ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aab b", ["", "a", "", "", ""]),
        ("ab", ["", "", "ab"]),
        ("aba", ["", "", "ab", "a"]),
    ],
)
def test_what_may_begin_a_stop_text_is_held_until_it_is_known(text, expected):
    tokenizer = Bytes()
    assert streamed(tokenizer, [], tokenizer.encode(text, range(99)), ["ab "])[0] == expected


@pytest.mark.parametrize("sizes", [(1,), (2,), (9,)])
def test_of_overlapping_stops_the_one_that_is_complete_first_counts(sizes):
    tokenizer = Bytes()
    for stops in (["ab é", "b"], ["b", "ab é"]):
        parts, _ = streamed(tokenizer, [], tokenizer.encode("aab é", range(99)), stops, sizes)
        assert "".join(parts) == "aa"


def test_half_a_character_at_the_end_is_told_as_such():
    tokenizer = Bytes()
    ids = tokenizer.encode("a😀", range(99))
    assert streamed(tokenizer, [], ids[:-1], ())[0] == ["a", "", "", "", "\ufffd"]


def test_the_tokens_of_a_long_text_are_not_decoded_again_and_again():
    tokenizer = Bytes()
    seen = []

    def decode(ids):
        seen.append(len(ids))
        return tokenizer.decode(ids)

    stream = TextStream(decode, list(range(0)), ["€"])
    for token in tokenizer.encode("ab " * 300, range(3000)):
        stream.add([token])
    assert max(seen) <= 16
