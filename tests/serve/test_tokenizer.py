"""What the model gets of a text is what transformers' own call of the tokenizer gives."""

import threading

import pytest
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers, processors

from serve_app.contract import Task
from serve_app.engine.base import InputLimit
from serve_app.http.errors import InputTooLongError
from serve_app.loading.tokenizer import Tokenizer
from serve_app.tasks import task_class
from tests.serve import tiny_models

TEXT = "a good film and a bad one, seen in a small town"
PAIR = "a bad film"
ROOM = InputLimit(100, truncate=True)


def bert() -> transformers.PreTrainedTokenizerFast:
    tokenizer = tiny_models.tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def cut_on_the_left() -> transformers.PreTrainedTokenizerFast:
    tokenizer = bert()
    tokenizer.truncation_side = "left"
    return tokenizer


def of_bytes() -> transformers.PreTrainedTokenizerFast:
    """RoBERTa's kind: a word's blank is a part of its token, and not of the token's place."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["\u0120a", "\u0120g"]
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", *alphabet, *words])}
    fast = tokenizers.Tokenizer(models.BPE(vocabulary, [tuple(word) for word in words]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.mark.parametrize("limit", [100, 24, 20])
@pytest.mark.parametrize("make", [bert, of_bytes], ids=lambda make: make.__name__)
def test_the_places_of_tokens_are_those_of_transformers(make, limit):
    right = make()(TEXT, truncation=True, max_length=limit, return_offsets_mapping=True)["offset_mapping"]
    assert Tokenizer(make()).encoding(TEXT, InputLimit(limit, truncate=True)).offsets == right


def of_transformers(tokenizer, limit: int, pair: str | None) -> dict[str, list[int]]:
    cut = True if pair is None else "only_first"
    return dict(tokenizer(TEXT, pair, truncation=cut, max_length=limit))


@pytest.mark.parametrize("pair", [None, PAIR], ids=["alone", "pair"])
@pytest.mark.parametrize("limit", [100, 24, 20])
@pytest.mark.parametrize(
    "make", [tiny_models.tokenizer, bert, cut_on_the_left], ids=lambda make: make.__name__
)
def test_the_encoding_is_that_of_transformers(make, limit, pair):
    got = Tokenizer(make()).encode(TEXT, InputLimit(limit, truncate=True), pair)
    assert got == of_transformers(make(), limit, pair)
    assert len(got["input_ids"]) <= limit


def test_a_tokenizer_in_python_is_called_through_transformers():
    tokenizer = transformers.ByT5Tokenizer()
    slow = Tokenizer(tokenizer)
    assert not slow.thread_safe
    assert slow.encode(TEXT, InputLimit(9, truncate=True)) == of_transformers(tokenizer, 9, None)
    with pytest.raises(InputTooLongError):
        slow.encode(TEXT, InputLimit(9, truncate=False))


def test_a_text_above_the_limit_is_refused_with_its_length():
    with pytest.raises(InputTooLongError, match="has 32 tokens and this endpoint takes 9"):
        Tokenizer(bert()).encode(TEXT, InputLimit(9, truncate=False))


@pytest.mark.parametrize("make", [bert, cut_on_the_left], ids=lambda make: make.__name__)
@pytest.mark.parametrize("limit", [9, 24])
def test_a_very_long_text_is_cut_like_any_other_and_is_not_read_whole(make, limit, monkeypatch):
    text = " ".join(TEXT for _ in range(2000))
    tokenizer = Tokenizer(make())
    assert tokenizer.encode(text, InputLimit(limit, truncate=True)) == dict(
        make()(text, truncation=True, max_length=limit)
    )
    assert len(tokenizer.within_reach(text, InputLimit(limit, truncate=True))) < 2000


def test_a_very_long_text_is_refused_with_a_length_that_it_has_at_least():
    with pytest.raises(InputTooLongError, match=r"has at least \d+ tokens and this endpoint takes 9"):
        Tokenizer(bert()).encode(" ".join([TEXT] * 2000), InputLimit(9, truncate=False))


def test_a_long_text_of_few_tokens_is_taken_whole():
    text = f"a good {' ' * 5000} film"
    got = Tokenizer(bert()).encode(text, InputLimit(9, truncate=False))
    assert got == dict(bert()("a good film"))


def test_a_pair_that_leaves_no_room_for_the_text_is_refused():
    with pytest.raises(InputTooLongError):
        Tokenizer(bert()).encode(TEXT, InputLimit(9, truncate=True), PAIR)


def test_padding_and_truncation_of_the_tokenizers_file_are_not_used():
    tokenizer = bert()
    tokenizer.backend_tokenizer.enable_padding(length=64)
    tokenizer.backend_tokenizer.enable_truncation(5)
    assert Tokenizer(tokenizer).encode(TEXT, ROOM) == of_transformers(bert(), 100, None)


def test_threads_share_a_tokenizer():
    shared = Tokenizer(bert())
    limits = [InputLimit(length, truncate=True) for length in (6, 100, 7, 9)]
    expected = [shared.encode(TEXT, limit) for limit in limits]
    wrong = []

    def encode_often(limit: InputLimit, lists: dict[str, list[int]]) -> None:
        wrong.extend(True for _ in range(300) if shared.encode(TEXT, limit) != lists)

    threads = [
        threading.Thread(target=encode_often, args=each) for each in zip(limits, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("task", "texts", "inline"),
    [
        (Task.TEXT_CLASSIFICATION, ["short", "texts"], True),
        (Task.FEATURE_EXTRACTION, ["short"], True),
        (Task.TEXT_CLASSIFICATION, ["words " * 100, "words " * 100], False),
        (Task.TOKEN_CLASSIFICATION, ["short"], False),
    ],
    ids=["classification", "embedding", "long together", "entities need the tokenizer again"],
)
def test_which_texts_are_encoded_inline(tmp_path, task, texts, inline):
    model = task_class(task)(tiny_models.write(task, tmp_path / "model"), "float32")
    assert model.encodes_inline(texts) == inline
