"""Keys, lists and limits in front of a replica, over HTTP, on an engine without weights."""

import asyncio
import json
import random
import time
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from serve_app.access.folder import AccessFolder
from serve_app.access.front import Front
from serve_app.contract import UserConfig
from serve_app.engine.admission import Admission
from serve_app.engine.records import Observers, RequestRecord, set_current_record
from serve_app.http.errors import OverloadedError
from serve_app.http.request_id import id_of
from serve_app.protocols import VERBS, model_application
from tests.unit import fake_model

KEYS = {"a": "sk-a-secret", "b": "sk-b-secret"}
QUERIES = ("", "ready", "info", "versions/1", "versions/9")


def access_folder(folder, **settings):
    for part in ("access", "keys"):
        (folder / part).mkdir()
    (folder / "access" / "access.json").write_text(json.dumps({"keys": "required"} | settings))
    for name, key in KEYS.items():
        (folder / "keys" / name).write_text(key)
    return AccessFolder(folder)


class Replica:
    """A model behind its front, and what was told of requests."""

    def __init__(self, folder, settings=None, **user_config):
        self.engine = fake_model.service().engine
        self.records, self.batches = [], []
        observers: Observers = self.engine.observers
        observers.requests.append(self.records.append)
        observers.batches.append(self.batches.append)
        self.front = Front("sentiment", access_folder(folder, **(settings or {})), observers)
        self.front.reconfigure(UserConfig(**user_config))
        self.app = model_application(self.engine, self.front)


@pytest.fixture
def served(tmp_path):
    """Return a function that serves a model with these settings."""
    clients = []

    def serve(settings=None, **user_config):
        replica = Replica(tmp_path, settings, **user_config)
        client = TestClient(replica.app, raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client, replica

    yield serve
    for client in clients:
        client.__exit__(None, None, None)


def key(name):
    return {"authorization": f"Bearer {KEYS[name]}"}


def test_a_request_with_a_key_is_answered_and_recorded(served):
    client, replica = served()
    answer = client.post("/predict", json={"text": "good film"}, headers=key("a") | {"x-request-id": "id-1"})
    assert answer.status_code == 200
    [record] = replica.records
    assert (record.id, record.caller, record.verb, record.status) == ("id-1", "a", "predict", 200)
    assert (record.input_tokens, record.output_tokens, record.batch_sequences) == (2, 0, 1)
    assert record.seconds >= record.queued_seconds + record.model_seconds >= 0
    assert record.model_began is not None
    [batch] = replica.batches
    assert (batch.requests, batch.sequences, batch.tokens, batch.failed) == ((record,), 1, 2, False)


@pytest.mark.parametrize("path", QUERIES)
def test_each_query_needs_a_key(served, path):
    client, _ = served()
    assert client.get(f"/{path}").status_code == 401
    assert client.get(f"/{path}", headers=key("a")).status_code in (200, 404, 422)


@pytest.mark.parametrize("verb", [*VERBS, "versions/1/infer"])
def test_each_verb_needs_a_key_before_its_body_is_read(served, verb):
    client, _ = served()
    answer = client.post(f"/{verb}", content=b"{", headers={"content-type": "text/plain"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post(f"/{verb}", content=b"{", headers=key("a")).status_code in (400, 422)


def test_openais_client_gets_its_shape(served):
    client, _ = served()
    error = client.post("/v1/embeddings", json={"input": "a"}).json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "unauthorized")


def test_a_key_that_is_not_listed_is_refused(served):
    client, replica = served(allow=["a"])
    assert client.post("/predict", json={"text": "a"}, headers=key("a")).status_code == 200
    answer = client.post("/predict", json={"text": "a"}, headers=key("b"))
    assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")
    assert [record.status for record in replica.records] == [200, 403]
    replica.front.reconfigure(UserConfig(allow=["b"]))
    assert client.post("/predict", json={"text": "a"}, headers=key("b")).status_code == 200


def test_a_hidden_model_is_as_unknown_as_another(served):
    client, _ = served({"notAllowed": 404}, allow=["a"])
    answer = client.post("/predict", json={"text": "a"}, headers=key("b"))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert "may not" not in answer.text
    assert client.get("/ready", headers=key("b")).status_code == 404


def test_a_limit_is_told_in_headers_and_ends_with_when_to_come_back(served):
    client, replica = served(key_requests_per_minute=2)
    answers = [client.post("/predict", json={"text": "a"}, headers=key("a")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert int(answers[2].headers["retry-after"]) in (29, 30)
    assert answers[2].json()["code"] == "rate_limited"
    assert client.post("/predict", json={"text": "a"}, headers=key("b")).status_code == 200
    assert replica.records[2].code == "rate_limited"


def test_tokens_are_counted_when_they_are_known(served):
    client, _ = served(key_tokens_per_minute=3)
    statuses = [
        client.post("/predict", json={"text": "a b c d"}, headers=key("a")).status_code for _ in range(2)
    ]
    assert statuses == [200, 429]


def test_a_place_is_free_again_after_an_error(served):
    client, _ = served(key_requests_at_once=1)
    bodies = [{"text": ""}, {"text": fake_model.BROKEN}, {"text": fake_model.UNREADABLE}, {"text": "good"}]
    statuses = [client.post("/predict", json=body, headers=key("a")).status_code for body in bodies]
    assert statuses == [422, 500, 422, 200]


@pytest.mark.parametrize("given", ["a b", "x" * 200, "", "a\n"])
def test_an_id_that_is_none_is_replaced(given):
    assert len(id_of(given)) == 32
    assert id_of("Id-1._") == "Id-1._"


def test_tokens_of_a_client_that_leaves_are_counted(served):
    client, replica = served(key_tokens_per_minute=100)
    replica.engine.reconfigure(UserConfig(request_timeout_seconds=0.2))
    replica.engine.model.hold()
    answer = client.post("/predict", json={"text": "a b c d"}, headers=key("a"))
    replica.engine.model.free.set()
    assert (answer.status_code, answer.headers["x-ratelimit-remaining-tokens"]) == (408, "96")
    assert replica.records[0].input_tokens == 4


@pytest.mark.parametrize("mode", ["required", "optional"])
def test_who_has_a_key_or_none_may_not_fill_the_whole_replica(served, mode):
    client, replica = served({"keys": mode})
    limit = 10
    admission = replica.engine._admission
    with ExitStack() as held:
        set_current_record(RequestRecord("id", "predict", has_keys=True))
        assert admission.most_places(limit) == 8
        for _ in range(8):
            held.enter_context(admission.place(limit))
        with pytest.raises(OverloadedError, match="keeps places for others"):
            held.enter_context(admission.place(limit))
        set_current_record(RequestRecord("id", "predict", caller="b", has_keys=True))
        held.enter_context(admission.place(limit))


def test_who_has_its_share_waits_a_moment_for_a_place():
    async def scenario():
        admission = Admission()
        set_current_record(RequestRecord("id", "predict", caller="a", has_keys=True))
        first = [admission.place(10) for _ in range(8)]
        for place in first:
            place.__enter__()
        waiting = asyncio.create_task(admission.wait_for_share(10))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        first[0].__exit__(None, None, None)
        await asyncio.wait_for(waiting, 1)
        with admission.place(10):
            assert admission.requests == 8
            began = time.monotonic()
            await admission.wait_for_share(10)
            assert 0.9 < time.monotonic() - began < 5

    asyncio.run(scenario())


def test_without_keys_all_places_are_everybodys(served):
    _, replica = served({"keys": "off"})
    with ExitStack() as held:
        set_current_record(RequestRecord("id", "predict"))
        for _ in range(replica.engine._admission.most_places(10)):
            held.enter_context(replica.engine._admission.place(10))
        assert replica.engine._admission.requests == 10


def test_an_observer_that_raises_fails_nothing(served):
    client, replica = served()
    replica.engine.observers.requests.insert(0, lambda record: 1 / 0)
    assert client.post("/predict", json={"text": "a"}, headers=key("a")).status_code == 200
    assert len(replica.records) == 1


def test_no_log_has_a_key(served, caplog):
    client, _ = served(allow=["a"])
    for headers in (key("a"), key("b"), {"authorization": "Bearer sk-wrong-secret"}):
        client.post("/predict", json={"text": fake_model.BROKEN}, headers=headers)
    assert "secret" not in caplog.text


def test_fuzzed_headers_neither_pass_nor_break_anything(served):
    client, replica = served()
    chosen = random.Random(7)
    characters = "abk-s \t,;:=\"'\\/%\x80\xff" + KEYS["a"]
    for _ in range(10_000):
        value = "".join(chosen.choices(characters, k=chosen.randrange(40)))
        scheme = chosen.choice(["Bearer ", "bearer\t", "Basic ", "", "BEARER  ", "Bearer,"])
        name = chosen.choice(["authorization", "x-api-key"])
        headers = {name: f"{scheme}{value}"}
        sent = value.strip() if name == "authorization" else f"{scheme}{value}".strip()
        assert sent not in KEYS.values()
        with pytest.raises(Exception, match=r"send a key|not known") as refused:
            replica.front.caller_of(headers)
        assert refused.value.status == 401
    answer = client.post("/predict", json={"text": "a"}, headers={"x-api-key": b"\xff\xfe"})
    assert answer.status_code == 401
