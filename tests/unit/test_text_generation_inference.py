"""`generate` of Text Generation Inference and of Triton on a fake engine."""

import pytest

from serve_app.engine.generation import FinishReason, Part
from serve_app.http.errors import ModelFailedError, OverloadedError
from tests.unit import fake_model
from tests.unit.fake_generation import HELLO, FakeEngine, parts_of, token
from tests.unit.test_chat_completions import TEXT, ask, events, roomy

GENERATE, STREAM, ROOT = "/generate", "/generate_stream", ""
TRITON = {"text_input": "one two"}
INPUTS = {"inputs": "one two"}


def test_a_text_comes_back():
    engine = FakeEngine()
    assert ask(engine, path=GENERATE, body=INPUTS).json() == {"generated_text": TEXT}
    assert engine.requests[0].top_logprobs is None
    full = {"return_full_text": True}
    assert ask(FakeEngine(), path=GENERATE, body=INPUTS, parameters=full).json() == {
        "generated_text": f"one two{TEXT}"
    }


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (parts_of("a", "b"), "eos_token"),
        (parts_of("a", "b", reason=FinishReason.LENGTH), "length"),
        ([*parts_of("a")[:1], Part("", (token(1, "END!"),), FinishReason.STOP)], "stop_sequence"),
        # Whatever the tokens say: a stop text of the endpoint, and one that a token only looks like.
        ([*parts_of("a")[:1], Part("", (token(1, "of the folder"),), FinishReason.STOP)], "stop_sequence"),
        ([*parts_of("a")[:1], Part("", (token(1, "END"),), FinishReason.END_TOKEN)], "eos_token"),
    ],
)
def test_details_have_the_tokens_and_why_it_ended(parts, reason):
    parameters = {"details": True, "stop": ["END"], "seed": 4, "top_n_tokens": 2}
    for path in (GENERATE, ROOT):
        answer = ask(FakeEngine(parts), path=path, body=INPUTS, parameters=parameters).json()
        details = (answer[0] if path == ROOT else answer)["details"]
        assert details["finish_reason"] == reason
        assert details["generated_tokens"] == len(details["tokens"]) == len(parts)
        assert details["tokens"][0] == {"id": 0, "text": "a", "logprob": -0.5, "special": False}
        assert details["tokens"][-1]["special"] == (reason != "length")
        assert len(details["top_tokens"][0]) == 2
        assert (details["seed"], details["prefill"]) == (4, [])


@pytest.mark.parametrize(
    ("path", "stream"), [(STREAM, {}), (GENERATE, {"stream": True}), (ROOT, {"stream": True})]
)
def test_a_stream_has_an_event_for_each_token(path, stream):
    # The text of the second token comes with the third.
    late = [
        HELLO[0],
        Part("", HELLO[1].tokens),
        Part(HELLO[1].text + HELLO[2].text, HELLO[2].tokens),
        HELLO[3],
    ]
    for parts in (HELLO, late):
        got = events(ask(FakeEngine(parts), path=path, body={**INPUTS, **stream}))
        assert [each["index"] for each in got] == [1, 2, 3, 4]
        assert "".join(each["token"]["text"] for each in got) == TEXT
        assert [each["generated_text"] for each in got] == [None, None, None, TEXT]
        assert got[0]["token"] == {"id": 0, "text": "Hello", "logprob": -0.5, "special": False}
        assert got[-1]["token"]["special"]
        assert got[-1]["details"] == {
            "finish_reason": "eos_token",
            "generated_tokens": 4,
            "seed": None,
            "input_length": 2,
        }


def test_text_without_a_token_has_an_event_too():
    parts = [Part("", (token(1, "a"),)), Part("a", (), FinishReason.LENGTH)]
    got = events(ask(FakeEngine(parts), path=STREAM, body=INPUTS))
    assert [each["token"]["text"] for each in got] == ["", "a"]
    assert (got[-1]["generated_text"], got[-1]["details"]["generated_tokens"]) == ("a", 1)


@pytest.mark.parametrize(
    ("parameters", "engine_gets"),
    [
        ({}, {}),
        ({"temperature": 0.5}, {"temperature": 0.5, "do_sample": True}),
        ({"top_p": 0.5, "do_sample": False}, {"top_p": 0.5, "do_sample": False}),
        ({"max_new_tokens": 3, "stop": ["a"], "seed": 1}, {"max_new_tokens": 3, "stop": ["a"], "seed": 1}),
        ({"best_of": 1, "typical_p": 1.0, "watermark": False, "truncate": None}, {}),
    ],
)
def test_parameters_are_the_task_s(parameters, engine_gets):
    engine = FakeEngine()
    ask(engine, path=GENERATE, body=INPUTS, parameters=parameters)
    assert engine.requests[0].parameters == {**engine_gets, "return_full_text": False}


@pytest.mark.parametrize(
    "parameters",
    [
        {"best_of": 2}, {"typical_p": 0.9}, {"watermark": True}, {"decoder_input_details": True},
        {"grammar": {"type": "json"}}, {"adapter_id": "x"}, {"truncate": 100}, {"temperature": 0},
        {"nope": 1},
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_by_name(parameters):
    error = ask(FakeEngine(), 422, GENERATE, INPUTS, parameters=parameters).json()
    assert error["error"].startswith(f"parameters.{next(iter(parameters))}: ")
    assert "true, false" not in error["error"]
    assert error["error_type"] == "validation"


def test_an_answer_has_so_many_log_probabilities(monkeypatch):
    parameters = {"max_new_tokens": 4096, "top_n_tokens": 5, "details": True}
    ask(roomy(), path=GENERATE, body=INPUTS, parameters=parameters)
    monkeypatch.setattr("serve_app.engine.generation.MAX_SCORES", 24_000)
    error = ask(roomy(), 422, GENERATE, INPUTS, parameters=parameters).json()
    assert error["error"].startswith("parameters.top_n_tokens, parameters.max_new_tokens: 1 continuation(s)")
    assert (error["error_type"], error["limit"]) == ("validation", 24_000)


def test_errors_have_the_types_that_the_client_knows():
    assert ask(FakeEngine(refusal=OverloadedError("full")), 429, STREAM, INPUTS).json() == {
        "error": "full",
        "code": "overloaded",
        "error_type": "overloaded",
    }
    for path, body in ((STREAM, INPUTS), (ROOT, {**INPUTS, "stream": True})):
        *_, last = events(ask(FakeEngine([HELLO[0], ModelFailedError()]), path=path, body=body))
        assert last["error_type"] == "generation"
    *_, last = events(ask(FakeEngine([HELLO[0], ModelFailedError()]), path=STREAM, body=TRITON))
    assert isinstance(last["error"], str)


def test_other_tasks_are_not_streamed():
    engine = fake_model.service().engine
    for path, body in ((ROOT, {**INPUTS, "stream": True}), (STREAM, INPUTS), (GENERATE, TRITON)):
        assert "text-classification" in ask(engine, 422, path, body).json()["error"]


def test_triton_s_generate():
    engine = FakeEngine()
    members = {"parameters": {"max_tokens": 4, "temperature": 0, "stop_words": [""], "bad_words": [""]}}
    assert ask(engine, path=GENERATE, body=TRITON, id="7", **members).json() == {
        "model_name": "chat",
        "model_version": "1",
        "id": "7",
        "text_output": TEXT,
    }
    assert engine.requests[0].prompt == "one two"
    assert engine.requests[0].parameters == {
        "max_new_tokens": 4,
        "do_sample": False,
        "return_full_text": False,
    }
    assert ask(FakeEngine(), path="/versions/1/generate", body=TRITON).json()["text_output"] == TEXT
    details = ask(FakeEngine(), path=GENERATE, body=TRITON, parameters={"details": True}).json()["details"]
    assert (details["finish_reason"], len(details["logprobs"])) == ("eos_token", 4)
    engine = FakeEngine(parts_of("a", reason=FinishReason.STOP))
    stopped = ask(engine, path=GENERATE, body=TRITON, parameters={"details": True}).json()["details"]
    assert stopped["finish_reason"] == "stop_sequence"
    error = ask(FakeEngine(), 422, GENERATE, TRITON, parameters={"bad_words": ["x"]}).json()["error"]
    assert error.startswith("parameters.bad_words: ")


def test_triton_s_stream_has_what_the_text_grows_by():
    got = events(ask(FakeEngine(), path=STREAM, body=TRITON))
    assert [each["text_output"] for each in got] == ["Hello", " there", " \U0001f44b"]
    assert got[0]["model_name"] == "chat"
