import asyncio
import time

import pytest

from serve_app.contract import UserConfig
from serve_app.engine import batch_engine
from serve_app.engine.base import EncodedSequence
from serve_app.http.errors import (
    InputTooLongError,
    InvalidInputError,
    ModelFailedError,
    OverloadedError,
    RequestTimeoutError,
)
from tests.harness.builders import run, until
from tests.unit import fake_model
from tests.unit.fake_model import fill, serving

ONE_AT_A_TIME = {"max_ongoing_requests": 1, "max_queued_requests": 1}


def labels(predictions):
    return [prediction["label"] for prediction in predictions]


def answer(texts, overrides=None, **user_config):
    async def scenario():
        async with serving(**user_config) as (engine, _):
            return await engine.predict(texts, overrides)

    return run(scenario())


def test_each_text_gets_its_answer_in_order():
    predictions = answer(["one two three", "four", "five six"])
    assert [(item["label"], item["score"]) for item in predictions] == [
        ("one", 1.5),
        ("four", 0.5),
        ("five", 1),
    ]


def test_a_request_above_the_limit_is_refused_with_the_limit():
    async def scenario():
        async with serving(**ONE_AT_A_TIME) as (engine, model):
            await fill(engine, model, 2)
            with pytest.raises(OverloadedError, match="2 requests are in this replica, which takes 2"):
                await engine.predict(["one more"])

    run(scenario())


def test_a_request_that_is_answered_makes_room():
    async def scenario():
        async with serving(**ONE_AT_A_TIME) as (engine, model):
            tasks = await fill(engine, model, 2)
            model.free.set()
            await asyncio.gather(*tasks)
            return labels(await engine.predict(["next"]))

    assert run(scenario()) == ["next"]


def test_a_client_that_goes_away_makes_room():
    async def scenario():
        async with serving(**ONE_AT_A_TIME) as (engine, model):
            tasks = await fill(engine, model, 2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            model.free.set()
            return labels(await engine.predict(["next"]))

    assert run(scenario()) == ["next"]


@pytest.mark.parametrize("word", [fake_model.UNREADABLE, fake_model.BROKEN, fake_model.UNSPEAKABLE])
def test_a_request_that_fails_makes_room(word):
    async def scenario():
        async with serving(**ONE_AT_A_TIME) as (engine, _):
            for _ in range(5):
                with pytest.raises(Exception, match=r"cannot be read|failed on this input|no such label"):
                    await engine.predict([word])
            return labels(await engine.predict(["next"]))

    assert run(scenario()) == ["next"]


def test_a_request_beyond_its_time_is_given_up_and_makes_room():
    async def scenario():
        async with serving(request_timeout_seconds=0.05, **ONE_AT_A_TIME) as (engine, model):
            model.hold()
            for _ in range(3):
                with pytest.raises(RequestTimeoutError, match=r"no answer within 0\.05 seconds"):
                    await engine.predict(["slow"])
            engine.reconfigure(UserConfig(**ONE_AT_A_TIME))
            model.free.set()
            return labels(await engine.predict(["next"]))

    assert run(scenario()) == ["next"]


def test_a_request_that_was_given_up_is_not_run():
    async def scenario():
        async with serving(request_timeout_seconds=0.05) as (engine, model):
            await fill(engine, model, 1)
            with pytest.raises(RequestTimeoutError):
                await engine.predict(["given up"])
            engine.reconfigure(UserConfig())
            model.free.set()
            await engine.predict(["next"])
            return model.batches

    assert run(scenario()) == [["held0"], ["next"]]


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(InvalidInputError, match="^the text is empty$"):
        answer([text])


def test_an_empty_text_among_others_is_named():
    with pytest.raises(InvalidInputError, match=r"^texts\[1\] is empty$"):
        answer(["a", " ", "b"])


@pytest.mark.parametrize("count", [0, 257])
def test_too_many_and_too_few_texts_are_refused_with_the_limit(count):
    with pytest.raises(InvalidInputError, match=f"^got {count} texts; one request takes 1 to 256$") as caught:
        answer(["a"] * count)
    assert caught.value.details == {"limit": 256}


def test_a_request_may_have_256_texts():
    assert len(answer(["a"] * 256)) == 256


def test_a_request_overrides_a_parameter_of_the_endpoint():
    [given], [default] = (
        answer(["a"], {"top_k": 2}, parameters={"top_k": 7}),
        answer(["a"], parameters={"top_k": 7}),
    )
    assert (given["details"][0]["top_k"], default["details"][0]["top_k"]) == (2, 7)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            {"topk": 1},
            "parameters.topk: text-classification does not take it; it takes function_to_apply, top_k",
        ),
        ({"top_k": 0}, "parameters.top_k: got 0; Input should be greater than or equal to 1"),
        ({"top_k": "two"}, "parameters.top_k: got 'two'; Input should be a valid integer"),
    ],
)
def test_a_bad_parameter_is_refused_with_what_is_allowed(overrides, sentence):
    with pytest.raises(InvalidInputError) as caught:
        answer(["a"], overrides)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("endpoint", "limit"), [(4, 4), (512, fake_model.FakeModel.max_tokens)])
def test_the_lower_of_the_two_limits_holds(endpoint, limit):
    answer(["word " * limit], max_input_tokens=endpoint)
    with pytest.raises(InputTooLongError) as caught:
        answer(["word " * (limit + 1)], max_input_tokens=endpoint)
    assert caught.value.details == {"length": limit + 1, "limit": limit}


def test_a_long_text_is_cut_if_the_endpoint_says_so():
    [prediction] = answer(["a b c d e"], max_input_tokens=3, truncate_input=True)
    assert prediction["details"][0]["words"] == ["a", "b", "c"]


def test_a_text_that_is_refused_is_named_among_others():
    with pytest.raises(InputTooLongError, match=r"^texts\[2\]: the text has 5 tokens") as caught:
        answer(["a", "b", "c d e f g"], max_input_tokens=4)
    assert caught.value.details == {"length": 5, "limit": 4}


def test_a_model_that_fails_fails_that_request_alone():
    async def scenario():
        async with serving() as (engine, model):
            await fill(engine, model, 1)
            requests = [engine.predict([text]) for text in ("good", fake_model.BROKEN, "fine")]
            tasks = [asyncio.create_task(request) for request in requests]
            await until(lambda: len(engine._batcher._queue) == 3)
            model.free.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    good, bad, fine = run(scenario())
    assert labels(good + fine) == ["good", "fine"]
    assert isinstance(bad, ModelFailedError)
    assert "no such index" not in str(bad)


def test_requests_that_come_together_share_a_batch():
    async def scenario():
        async with serving() as (engine, model):
            held = await fill(engine, model, 1)
            tasks = [asyncio.create_task(engine.predict([text])) for text in ("a", "b")]
            await until(lambda: len(engine._batcher._queue) == 2)
            model.free.set()
            await asyncio.gather(*held, *tasks)
            return model.batches

    assert run(scenario()) == [["held0"], ["a", "b"]]


def test_new_settings_hold_for_the_next_request():
    async def scenario():
        async with serving(max_input_tokens=2) as (engine, _):
            engine.reconfigure(UserConfig(max_input_tokens=5, max_batch_size=3, max_wait_milliseconds=7))
            await engine.predict(["a b c d e"])
            return engine.input_limit.max_tokens, engine._batcher.limits

    limit, batches = run(scenario())
    assert (limit, batches.max_size, batches.max_wait_seconds) == (5, 3, 0.007)


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ("MAX_TOKENS_PER_REQUEST", "the request has more than 5 tokens"),
        ("MAX_ANSWER_CHARACTERS", "the answer would have more than 5 characters"),
    ],
)
def test_a_request_of_too_much_work_is_refused_with_the_limit(monkeypatch, limit, sentence):
    monkeypatch.setattr(batch_engine, limit, 5)
    monkeypatch.setattr(fake_model.FakeModel, "answer_characters", lambda self, text, *_: len(text))
    answer(["a b", "c"])
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        answer(["a b", "c d", "e f"])
    assert caught.value.details == {"limit": 5}


def test_tokens_that_may_be_generated_count(monkeypatch):
    monkeypatch.setattr(batch_engine, "MAX_TOKENS_PER_REQUEST", 5)
    monkeypatch.setattr(fake_model.FakeModel, "new_tokens", 4)
    answer(["a"])
    with pytest.raises(InvalidInputError, match="with those to be generated"):
        answer(["a b"])


def test_large_requests_share_the_room_of_small_ones_and_small_ones_always_get_in():
    """The replica takes 2 requests of up to 10 tokens each, so large ones have 20 tokens."""

    async def scenario():
        async with serving(max_ongoing_requests=2, max_queued_requests=2) as (engine, model):
            model.hold()
            large = asyncio.create_task(engine.predict(["a b c d e f g h"] * 4))
            await until(model.started.is_set)
            with pytest.raises(
                OverloadedError, match="the request has 16 tokens, and large requests with 32"
            ):
                await engine.predict(["a b c d e f g h"] * 2)
            small = asyncio.create_task(engine.predict(["small"]))
            await asyncio.sleep(0.02)
            model.free.set()
            await large
            assert labels(await small) == ["small"]
            return labels(await engine.predict(["a b c d e f g h"] * 2))

    assert run(scenario()) == ["a", "a"]


def test_requests_take_turns_in_the_thread_for_texts(monkeypatch):
    monkeypatch.setattr(batch_engine, "TURN_SECONDS", 0)
    seen = []

    def encode(self, text, parameters, limit):
        seen.append(text)
        time.sleep(0.001)
        return [EncodedSequence({"input_ids": [0], "words": [text]})]

    monkeypatch.setattr(fake_model.FakeModel, "encode", encode)

    async def scenario():
        async with serving() as (engine, _):
            many = asyncio.create_task(engine.predict(["many"] * 200))
            await until(lambda: len(seen) > 3)
            await engine.predict(["few"])
            assert seen.index("few") < 50
            many.cancel()
            await asyncio.gather(many, return_exceptions=True)
            await asyncio.sleep(0.05)
            # The thread's work has ended with the request.
            assert len(seen) < 200

    run(scenario())
