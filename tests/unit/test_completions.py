"""OpenAI's completions on a fake engine."""

import pytest

from serve_app.contract import UserConfig
from serve_app.engine.generation import FinishReason, GeneratedToken, Part, TokenScore
from serve_app.http.errors import ModelFailedError
from tests.unit.fake_generation import FakeEngine, parts_of
from tests.unit.test_chat_completions import TEXT, events, roomy
from tests.unit.test_chat_completions import ask as asked

PATH = "/v1/completions"


def ask(engine, prompt, status=200, **members):
    return asked(engine, status, PATH, {"model": "chat", "prompt": prompt}, **members)


def test_an_answer_has_openai_s_shape():
    answer = ask(FakeEngine(), "one two").json()
    assert answer.pop("id").startswith("cmpl-")
    assert answer.pop("created")
    assert answer == {
        "object": "text_completion",
        "model": "chat",
        "choices": [{"text": TEXT, "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 4,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
        "system_fingerprint": None,
    }


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_prompts_are_texts_or_token_ids(prompt, prompts):
    engine = FakeEngine()
    answer = ask(engine, prompt, n=2).json()
    assert [request.prompt for request in engine.requests] == [each for each in prompts for _ in range(2)]
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(prompts)))
    assert answer["usage"]["prompt_tokens"] == sum(
        len(each.split() if isinstance(each, str) else each) for each in prompts
    )


def test_a_stream_has_text_then_a_reason():
    *chunks, counted, done = events(
        ask(FakeEngine(parts_of("a", "b")), "x", stream=True, stream_options={"include_usage": True})
    )
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "b", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert (counted["choices"], counted["usage"]["completion_tokens"], done) == ([], 3, "[DONE]")


def test_the_prompt_comes_first_with_echo():
    answer = ask(FakeEngine(parts_of("b")), ["a ", "c "], echo=True).json()
    assert [choice["text"] for choice in answer["choices"]] == ["a b", "c b"]
    first, *_ = events(ask(FakeEngine(parts_of("b")), "a ", echo=True, stream=True))
    assert first["choices"][0]["text"] == "a b"
    assert ask(FakeEngine(), [1], 422, echo=True).json()["error"]["param"] == "echo"
    assert ask(FakeEngine(), "a", 422, echo=True, logprobs=1).json()["error"]["param"] == "echo"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_lists_with_offsets(stream):
    response = ask(FakeEngine(parts_of("ab", "c")), "x", logprobs=2, stream=stream)
    documents = events(response)[:-1] if stream else [response.json()]
    scores = [each["choices"][0]["logprobs"] for each in documents]
    joined = {name: [one for each in scores if each for one in each[name]] for name in scores[0]}
    assert joined == {
        "tokens": ["ab", "c", ""],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "top_logprobs": [{"ab": -0.5, "other": -1.5}, {"c": -0.5, "other": -1.5}, {"": -0.5, "other": -1.5}],
        "text_offset": [0, 2, 3],
    }


def test_of_tokens_with_the_same_text_the_likeliest_counts():
    top = (TokenScore(1, "\ufffd", -0.5), TokenScore(2, "b", -1.0), TokenScore(3, "\ufffd", -1.5))
    parts = [Part("", (GeneratedToken(4, "\ufffd", -2.0, top),), FinishReason.LENGTH)]
    [choice] = ask(FakeEngine(parts), "x", logprobs=3).json()["choices"]
    assert choice["logprobs"]["top_logprobs"] == [{"\ufffd": -0.5, "b": -1.0}]
    assert choice["logprobs"]["token_logprobs"] == [-2.0]


def test_an_error_in_the_middle_is_the_last_event():
    *_, last = events(ask(FakeEngine([*parts_of("a")[:1], ModelFailedError()]), "x", stream=True, n=2))
    assert last["error"]["code"] == "model_failed"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": ["a"] * 33, "n": 2}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [["a"]]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"logprobs": 6}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(members, param):
    prompt = members.pop("prompt", "x")
    assert ask(FakeEngine(), prompt, 422, **members).json()["error"]["param"] == param


def test_more_prompts_than_a_replica_ever_takes_are_refused_for_good():
    engine = FakeEngine()
    engine.reconfigure(UserConfig(max_ongoing_requests=2, max_queued_requests=1))
    for prompt, members, param in ((["a"] * 4, {}, "prompt"), (["a"] * 2, {"n": 2}, "n")):
        error = ask(engine, prompt, 422, **members).json()["error"]
        assert (error["param"], error["limit"]) == (param, 3)
    assert len(ask(engine, ["a"] * 3).json()["choices"]) == 3


def test_an_answer_has_so_many_log_probabilities():
    error = ask(roomy(), ["a"] * 64, 422, logprobs=5, max_tokens=261).json()["error"]
    assert (error["param"], error["limit"]) == ("logprobs", 100_000)
    assert error["message"].startswith("logprobs, prompt, max_tokens: 64 continuation(s) of up to 261 tokens")
    ask(roomy(), ["a"] * 64, logprobs=5, max_tokens=260)


def test_best_of_as_many_as_are_returned_is_all():
    assert len(ask(FakeEngine(), "x", n=2, best_of=2).json()["choices"]) == 2
