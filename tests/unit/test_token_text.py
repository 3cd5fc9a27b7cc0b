"""The texts of single tokens, of decoders as models have them."""

import pytest
from tokenizers import Tokenizer, decoders, models

from serve_app.engine.continuous.token_text import TokenTexts

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
WORDS = ["\u2581", "a", "\u2581a", "\u2581Paris", "is", "\u2581is", ".", "\u2581\u2581"]


def made(vocabulary, decoder):
    tokenizer = Tokenizer(models.BPE({each: number for number, each in enumerate(vocabulary)}, []))
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def llama():
    """Return a tokenizer with the decoder of Llama 2 and Mistral."""
    return made(
        [*SPECIAL, *BYTES, *WORDS],
        decoders.Sequence(
            [
                decoders.Replace("\u2581", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        ),
    )


def metaspace():
    return made([*SPECIAL, *BYTES, *WORDS], decoders.Metaspace())


def gemma():
    """Return one that keeps the first blank."""
    return made(
        [*SPECIAL, *BYTES, *WORDS],
        decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]),
    )


def texts(tokenizer, before=("\u2581a",)):
    decoded = []

    def decode(ids):
        decoded.append(list(ids))
        return tokenizer.decode(ids, skip_special_tokens=False)

    ids = [tokenizer.token_to_id(each) for each in before]
    return TokenTexts(decode, ids, [tokenizer.token_to_id(each) for each in SPECIAL]), decoded


@pytest.mark.parametrize("make", [llama, metaspace, gemma])
def test_the_texts_of_tokens_make_the_text(make):
    tokenizer = make()
    of = texts(tokenizer)[0].of
    names = ["\u2581Paris", "\u2581is", "\u2581a", ".", "\u2581", "is"]
    ids = [tokenizer.token_to_id(name) for name in names]
    assert [of(each) for each in ids] == [" Paris", " is", " a", ".", " ", "is"]
    prompt = [tokenizer.token_to_id("\u2581a")]
    whole = tokenizer.decode([*prompt, *ids])
    assert whole == tokenizer.decode(prompt) + "".join(map(of, ids))


def test_half_a_character_and_special_tokens_are_told_as_alone():
    tokenizer = llama()
    of = texts(tokenizer)[0].of
    assert of(tokenizer.token_to_id("<0xC3>")) == "\ufffd"
    assert of(tokenizer.token_to_id("<0x0A>")) == "\n"
    assert of(tokenizer.token_to_id("</s>")) == "</s>"


@pytest.mark.parametrize("before", [(), ("<unk>",), ("\u2581a", "<s>")])
def test_without_a_word_a_token_has_the_text_that_it_has_alone(before):
    tokenizer = llama()
    of = texts(tokenizer, before)[0].of
    assert of(tokenizer.token_to_id("\u2581Paris")) == "Paris"


def test_so_has_one_where_the_word_does_not_stay_as_it_is():
    of = TokenTexts(lambda ids: "".join(f"{each}" for each in reversed(ids)), [1], ()).of
    assert (of(1), of(2)) == ("1", "2")


def test_a_token_is_decoded_once():
    made_of, decoded = texts(llama())
    decoded.clear()
    assert made_of.of(260) == made_of.of(260)
    assert len(decoded) == 1
