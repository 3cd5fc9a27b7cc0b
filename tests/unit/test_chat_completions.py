"""OpenAI's chat completions on a fake engine."""

import json

import pytest
from starlette.testclient import TestClient

from serve_app.contract import UserConfig
from serve_app.engine.generation import FinishReason
from serve_app.http.errors import ModelFailedError, OverloadedError
from serve_app.protocols import model_application
from tests.unit.fake_generation import FakeEngine, parts_of

PATH = "/v1/chat/completions"
HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
TEXT = "Hello there \U0001f44b"


def ask(engine, status=200, path=PATH, body=HELLO, **members):
    with TestClient(model_application(engine), raise_server_exceptions=False) as client:
        response = client.post(path, json={**body, **members})
    assert response.status_code == status, response.text
    return response


def events(response):
    """Return the data of each event, and check the form of the stream."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    *blocks, rest = response.text.split("\n\n")
    assert rest == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    data = [block.removeprefix("data: ") for block in blocks]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def test_an_answer_has_openai_s_shape():
    engine = FakeEngine()
    answer = ask(engine).json()
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer.pop("created") > 1_700_000_000
    assert answer == {
        "object": "chat.completion",
        "model": "chat",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 4,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
        "system_fingerprint": None,
    }
    assert engine.generations[0].closed
    [request] = engine.requests
    assert request.prompt.messages == [{"role": "user", "content": "hi"}]
    assert (request.parameters, request.top_logprobs) == ({"return_full_text": False}, None)


def test_a_stream_has_a_role_then_text_then_a_reason_and_a_count_if_asked():
    engine = FakeEngine(parts_of("a", "b", reason=FinishReason.LENGTH))
    *chunks, counted, done = events(ask(engine, stream=True, stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (counted["choices"], counted["usage"]["total_tokens"]) == ([], 4)
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    *chunks, done = events(ask(FakeEngine(), stream=True))
    assert not any("usage" in chunk for chunk in chunks)
    assert engine.generations[0].closed


@pytest.mark.parametrize("reason", [FinishReason.END_TOKEN, FinishReason.STOP])
@pytest.mark.parametrize("path", [PATH, "/v1/completions"])
def test_openai_has_one_word_for_a_token_and_a_text_that_end_the_answer(reason, path):
    body = HELLO if path == PATH else {"model": "chat", "prompt": "x"}
    parts = parts_of("a", reason=reason)
    assert ask(FakeEngine(parts), path=path, body=body).json()["choices"][0]["finish_reason"] == "stop"
    *_, last, _ = events(ask(FakeEngine(parts), path=path, body=body, stream=True))
    assert last["choices"][0]["finish_reason"] == "stop"


def test_an_error_before_the_first_part_is_an_answer_with_its_status():
    for engine in (
        FakeEngine(refusal=OverloadedError("full")),
        FakeEngine([ModelFailedError()]),
    ):
        status = 429 if engine.refusal else 500
        error = ask(engine, status, stream=True).json()["error"]
        assert error["type"] == ("rate_limit_error" if status == 429 else "server_error")
        assert all(generation.closed for generation in engine.generations)


@pytest.mark.parametrize(
    ("error", "code"), [(ModelFailedError(), "model_failed"), (RuntimeError("oops"), "internal_error")]
)
def test_an_error_in_the_middle_is_the_last_event(error, code):
    engine = FakeEngine([*parts_of("a")[:1], error])
    *_, last = events(ask(engine, stream=True))
    assert last["error"]["code"] == code
    assert "oops" not in last["error"]["message"]
    assert engine.generations[0].closed
    assert ask(FakeEngine(engine.parts), 500).json()["error"]["code"] == code


def test_several_choices_are_generated_side_by_side_with_seeds_of_their_own():
    engine = FakeEngine()
    answer = ask(engine, n=3, seed=7, temperature=0.5).json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == [TEXT] * 3
    assert [request.parameters["seed"] for request in engine.requests] == [7, 8, 9]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (1, 12)
    *chunks, _ = events(ask(FakeEngine(), n=2, stream=True))
    for number in (0, 1):
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == number]
        assert "".join(choice["delta"].get("content", "") for choice in choices) == TEXT
        assert choices[0]["delta"]["role"] == "assistant"
        assert choices[-1]["finish_reason"] == "stop"


def test_a_choice_that_is_refused_ends_the_others():
    class OnlyTwo(FakeEngine):
        async def generate(self, request):
            if len(self.generations) == 2:
                raise OverloadedError("full")
            return await super().generate(request)

    engine = OnlyTwo()
    ask(engine, 429, n=3)
    assert [generation.closed for generation in engine.generations] == [True, True]


def test_more_choices_than_a_replica_ever_takes_are_refused_for_good():
    engine = FakeEngine()
    engine.reconfigure(UserConfig(max_ongoing_requests=2, max_queued_requests=1))
    error = ask(engine, 422, n=4).json()["error"]
    assert (error["param"], error["limit"], error["code"]) == ("n", 3, "invalid_input")
    assert error["message"] == ("n: the request has 4 continuations, and a replica of this endpoint takes 3")
    assert engine.requests == []
    error = ask(engine, 422, n=3, max_completion_tokens=11).json()["error"]
    assert (error["param"], error["limit"]) == ("n", 30)
    assert error["message"].startswith("n, max_completion_tokens: 3 continuations of up to 11 tokens")
    assert ask(engine, 422, n=3, max_tokens=11).json()["error"]["message"].startswith("n, max_tokens: ")
    ask(engine, n=3, max_tokens=10)
    ask(engine, max_tokens=4096)


def roomy():
    """Return an engine that takes any number of tokens."""
    engine = FakeEngine()
    engine.model.max_tokens = 10_000
    engine.reconfigure(UserConfig(max_input_tokens=10_000))
    return engine


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_has_so_many_log_probabilities(stream):
    engine = roomy()
    asked = {"n": 16, "max_tokens": 4096, "logprobs": True, "ignore_eos": True, "stream": stream}
    error = ask(engine, 422, **asked, top_logprobs=20).json()["error"]
    assert (error["param"], error["limit"], error["type"]) == (
        "top_logprobs",
        100_000,
        "invalid_request_error",
    )
    assert error["message"] == (
        "top_logprobs, n, max_tokens: 16 continuation(s) of up to 4096 tokens with 21 log-probabilities each "
        "make 1376256, and one request takes 100000 of them"
    )
    assert engine.requests == []
    ask(engine, **{**asked, "n": 1}, top_logprobs=20)
    ask(engine, **asked | {"logprobs": False})
    ask(engine, n=16, logprobs=True, top_logprobs=20, stream=stream)


def test_logprobs_have_the_best_tokens_and_their_bytes():
    engine = FakeEngine()
    [choice] = ask(engine, logprobs=True, top_logprobs=1).json()["choices"]
    content = choice["logprobs"]["content"]
    assert content[2] == {
        "token": " \U0001f44b",
        "logprob": -0.5,
        "bytes": [32, 240, 159, 145, 139],
        "top_logprobs": [{"token": " \U0001f44b", "logprob": -0.5, "bytes": [32, 240, 159, 145, 139]}],
    }
    assert engine.requests[0].top_logprobs == 1
    *chunks, _ = events(ask(FakeEngine(), logprobs=True, stream=True))
    scores = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [len(each["content"]) for each in scores if each] == [1, 1, 1, 1]
    assert ask(FakeEngine(), 422, top_logprobs=2).json()["error"]["param"] == "top_logprobs"


@pytest.mark.parametrize(
    ("members", "parameters"),
    [
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0.5, "top_p": 0.9}, {"do_sample": True, "temperature": 0.5, "top_p": 0.9}),
        ({"top_p": 1, "seed": 3}, {"top_p": 1, "seed": 3}),
        ({"max_tokens": 5}, {"max_new_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_new_tokens": 6}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
        ({"top_k": -1, "min_p": 0.1}, {"top_k": 0, "min_p": 0.1}),
        (
            {"presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1, "ignore_eos": True},
            {"presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1, "ignore_eos": True},
        ),
    ],
)
def test_members_are_the_task_s_parameters(members, parameters):
    engine = FakeEngine()
    ask(engine, **members)
    assert engine.requests[0].parameters == {**parameters, "return_full_text": False}


def test_messages_come_to_the_template_as_it_reads_them():
    engine = FakeEngine()
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "c", "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "assistant", "content": "so"},
    ]
    ask(engine, messages=messages, continue_final_message=True, add_generation_prompt=False)
    [request] = engine.requests
    assert request.prompt.continues
    assert request.prompt.messages == [
        {"role": "system", "content": "a\nb"},
        {"role": "user", "content": "c", "name": "ada"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**call, "function": {"name": "f", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "1"},
        {"role": "assistant", "content": "so"},
    ]


def test_tools_are_for_the_template_alone():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    error = ask(FakeEngine(), 422, tools=tools).json()["error"]
    assert (error["param"], error["type"]) == ("tools", "invalid_request_error")
    engine = FakeEngine()
    ask(engine, tools=tools, tool_choice="none")
    assert engine.requests[0].prompt.tools == tuple(tools)


@pytest.mark.parametrize(
    "members",
    [
        {"logit_bias": {"1": 2}}, {"functions": [{}]}, {"function_call": "auto"}, {"reasoning_effort": "low"},
        {"audio": {"voice": "x"}}, {"min_tokens": 2}, {"chat_template_kwargs": {"a": 1}},
        {"verbosity": "low"},
        {"response_format": {"type": "json_object"}}, {"modalities": ["audio"]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"stop_token_ids": ["a"]}, {"unknown": 1},
    ],
)  # fmt: skip
def test_what_would_change_the_answer_and_is_not_there_is_refused_by_name(members):
    error = ask(FakeEngine(), 422, **members).json()["error"]
    [name] = members
    assert error["param"].startswith(name)
    assert error["message"].startswith(name)


def test_what_changes_no_answer_is_taken():
    ask(
        FakeEngine(),
        user="u", metadata={"a": "b"}, store=False, service_tier="auto", parallel_tool_calls=True,
        response_format={"type": "text"}, logit_bias={}, tools=[], tool_choice=None, modalities=["text"],
        reasoning_effort=None, functions=None, safety_identifier="x", prompt_cache_key="y",
        stream_options=None, n=1, logprobs=False, top_logprobs=None, max_tokens=None, stop=None,
    )  # fmt: skip


def test_another_task_and_another_model_are_refused():
    from tests.unit import fake_model

    assert "text-generation" in ask(fake_model.service().engine, 422).json()["error"]["message"]
    assert ask(FakeEngine(), 422, model="other").json()["error"]["message"].startswith("model: ")


def test_a_whole_answer_has_a_time_limit_and_a_streamed_one_only_until_it_begins():
    engine = FakeEngine([*parts_of("a")[:1], 0.3, *parts_of("b")])
    engine.reconfigure(UserConfig(request_timeout_seconds=0.1))
    error = ask(engine, 408).json()["error"]
    assert (error["code"], engine.generations[0].closed) == ("request_timeout", True)
    assert events(ask(engine, stream=True))[-1] == "[DONE]"
