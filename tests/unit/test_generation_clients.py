"""The client of Hugging Face as it is, on a fake engine behind a real server: what only streams can show."""

import asyncio
import threading
import time

import huggingface_hub
import pytest
import uvicorn
from huggingface_hub.errors import GenerationError

from endpoint_operator.local.ports import free_port
from serve_app.http.errors import ModelFailedError
from serve_app.protocols import model_application
from tests.unit.fake_generation import HELLO, FakeEngine

TEXT = "Hello there \U0001f44b"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def served():
    """An engine, and the address of the server that answers for it."""
    engine, port = FakeEngine(), free_port()
    config = uvicorn.Config(model_application(engine), port=port, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield engine, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def engine(served):
    served[0].parts = HELLO
    return served[0]


@pytest.fixture
def client(served, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return huggingface_hub.InferenceClient(model=served[1])


def test_a_chat(engine, client):
    assert client.chat_completion(MESSAGES).choices[0].message.content == TEXT
    chunks = list(client.chat_completion(MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_text(engine, client):
    assert "".join(client.text_generation("a", stream=True)) == TEXT
    *_, last = client.text_generation("a", stream=True, details=True)
    assert (last.generated_text, last.details.finish_reason) == (TEXT, "eos_token")
    assert client.text_generation("a", details=True).details.generated_tokens == len(HELLO)


def test_an_error_in_the_middle_is_raised_after_what_came(engine, client):
    engine.parts = [HELLO[0], ModelFailedError()]
    stream = client.text_generation("a", stream=True)
    assert next(stream) == "Hello"
    with pytest.raises(GenerationError, match="the model failed"):
        next(stream)


def test_a_client_that_stops_reading_ends_the_generation(engine, client):
    engine.parts = [HELLO[0], asyncio.Event()]
    stream = client.text_generation("a", stream=True)
    assert next(stream) == "Hello"
    stream.close()
    until = time.monotonic() + 5
    while not engine.generations[-1].closed and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.generations[-1].closed
