"""Clients as they are on PyPI chat with a real model, directly and through the gateway, streamed or not."""

import asyncio
import json

import huggingface_hub
import pytest

from serve_app.http.entrances import ENTRANCES
from tests.clients.ask_chat import MESSAGES, PROMPT, TOKENS
from tests.serve.service import SAMPLES
from tests.serve.test_clients import ENTERED, asked, through_gateway

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
GREEDY = {"model": "chat", "messages": MESSAGES, "temperature": 0, "max_tokens": TOKENS}


@pytest.fixture(scope="module")
def chat(service):
    """The service with the sample that chats, in float32.

    What is known of a prompt decides in which pieces it is computed, and then a close call may go either way
    in bfloat16.
    """
    manifest = (SAMPLES / "chat.yaml").read_text()
    assert "dtype: bfloat16" in manifest
    (service.folder / "chat.yaml").write_text(manifest.replace("dtype: bfloat16", "dtype: float32"))
    service.wait_ready("chat")
    yield service
    service.remove("chat.yaml")


@pytest.fixture(scope="module")
def right(chat):
    """What the model says: to the messages, and after the prompt, without any client."""
    answer = chat.http.post(CHAT, json=GREEDY).json()
    parameters = {"max_new_tokens": TOKENS, "do_sample": False}
    text = chat.http.post("/predict", json={"model": "chat", "text": PROMPT, "parameters": parameters}).json()
    return answer["choices"][0]["message"]["content"], text["generated_text"]


@pytest.fixture(scope="module")
def answers(chat):
    return asked("clients.txt", "ask_chat.py", chat.url(""))


def test_the_client_of_openai(answers, right):
    said, continued = right
    got = answers["openai"]
    assert got["whole"] == got["stream"] == [said, ["length"], TOKENS]
    assert "".join(token for token, _, _ in got["logprobs"]) == said
    assert all(logprob < 0 and best == 2 for _, logprob, best in got["logprobs"])
    assert len(got["sampled"]) == 2
    assert got["sampled"] == got["again"]
    assert got["completions"] == [continued] * 2
    assert len(got["completion logprobs"]) == TOKENS
    assert got["stopped"] == [continued.partition("Paris")[0], "stop"]
    assert got["errors"] == [
        ["NotFoundError", 404, None],
        ["UnprocessableEntityError", 422, "tools"],
        ["UnprocessableEntityError", 422, "response_format.type"],
    ]
    assert answers["openai async"] == [said, said]


def test_the_clients_of_langchain_and_litellm(answers, right):
    said, continued = right
    assert answers["langchain"] == {"whole": [said, TOKENS], "stream": [said, TOKENS]}
    litellm = {"whole": said, "stream": said, "text": continued, "triton": continued}
    assert answers["litellm"] == litellm


def test_the_client_of_hugging_face(chat, right, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    said, continued = right
    url = f"http://127.0.0.1:{chat.port}/v2/models/chat"
    client = huggingface_hub.InferenceClient(model=url)
    greedy = {"temperature": 0, "max_tokens": TOKENS}
    assert client.chat_completion(MESSAGES, **greedy).choices[0].message.content == said
    chunks = client.chat_completion(MESSAGES, stream=True, **greedy)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    assert "".join(client.text_generation(PROMPT, max_new_tokens=TOKENS, stream=True)) == continued
    whole = client.text_generation(PROMPT, max_new_tokens=TOKENS, details=True)
    assert (whole.generated_text, whole.details.generated_tokens) == (continued, TOKENS)
    *_, last = client.text_generation(PROMPT, max_new_tokens=TOKENS, stream=True, details=True)
    assert (last.generated_text, last.details.finish_reason) == (continued, "length")

    async def ask():
        async with huggingface_hub.AsyncInferenceClient(model=url) as client:
            stream = await client.text_generation(PROMPT, max_new_tokens=TOKENS, stream=True)
            return "".join([piece async for piece in stream])

    assert asyncio.run(ask()) == continued


def test_the_gateway_answers_as_the_replica_does(chat, right):
    said, continued = right
    assert {*ENTERED, CHAT, COMPLETIONS} == set(ENTRANCES)
    headers = {"content-type": "application/json"}
    whole = chat.http.post(CHAT, content=through_gateway(GREEDY), headers=headers).json()
    assert whole["choices"][0]["message"]["content"] == said
    text = {"model": "chat", "prompt": PROMPT, "temperature": 0, "max_tokens": TOKENS}
    whole = chat.http.post(COMPLETIONS, content=through_gateway(text), headers=headers).json()
    assert whole["choices"][0]["text"] == continued
    body = through_gateway({**GREEDY, "stream": True})
    with chat.http.stream("POST", CHAT, content=body, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert data[-1] == "[DONE]"
    deltas = [json.loads(each)["choices"][0]["delta"] for each in data[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == said
    refused = chat.http.post(CHAT, content=through_gateway({**GREEDY, "n": 0}), headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "n")


@pytest.mark.parametrize("body", [json.dumps, through_gateway])
def test_a_client_that_leaves_ends_the_generation(chat, body):
    long = {**GREEDY, "stream": True, "max_tokens": 1500, "ignore_eos": True}
    headers = {"content-type": "application/json"}
    before = generated(chat)
    with chat.http.stream("POST", CHAT, content=body(long), headers=headers) as response:
        next(response.iter_lines())
    chat.wait_for("its end", lambda: generated(chat)["requests"] > before["requests"], 30)
    assert generated(chat)["generated_tokens"] - before["generated_tokens"] < long["max_tokens"]


def generated(chat):
    """Return what the replica counts of continuations that are over."""
    return chat.http.get("/v2/models/chat").json()["parameters"]["generation"]
