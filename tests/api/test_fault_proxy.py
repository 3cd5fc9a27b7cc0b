"""The proxy that does harm, in front of the real API server: each fault is what a client meets."""

import json
import threading
import time

import httpx
import pytest

from tests.harness.api_server.control_plane import client
from tests.harness.api_server.faults import (
    Answer,
    CutAfter,
    Delay,
    EndWatch,
    GoneEvent,
    Hang,
    Late,
    ShortList,
)

MAPS = "/api/v1/namespaces/default/configmaps"
WATCH = {"watch": "true", "labelSelector": "of=proxy"}


def config_map(name, **data):
    return {"metadata": {"name": name, "labels": {"of": "proxy"}}, "data": data}


@pytest.fixture
def through(api_server, proxy):
    """A client that goes through the proxy."""
    with client(api_server, url=proxy.url) as http:
        http.timeout = 2
        yield http


@pytest.fixture
def stored(http):
    """Two objects in the API server."""
    for name in ("one", "two"):
        http.post(MAPS, json=config_map(name)).raise_for_status()
    yield ["one", "two"]
    http.delete(MAPS, params={"labelSelector": "of=proxy"}).raise_for_status()


def names(answer):
    return [item["metadata"]["name"] for item in answer.json()["items"] if "labels" in item["metadata"]]


def events(response):
    """Yield the type of each event of a watch."""
    for line in response.iter_lines():
        yield json.loads(line)["type"]


def test_requests_and_answers_pass_unchanged(http, through, stored):
    assert through.get(MAPS).json()["items"] == http.get(MAPS).json()["items"]
    answer = through.patch(
        f"{MAPS}/one", json={"data": {"a": "b"}}, headers={"Content-Type": "application/merge-patch+json"}
    )
    assert (answer.status_code, http.get(f"{MAPS}/one").json()["data"]) == (200, {"a": "b"})


def test_a_missing_object_is_missing_through_the_proxy_too(through):
    assert through.get(f"{MAPS}/none").status_code == 404


def test_what_passed_is_recorded(proxy, through, stored):
    through.get(MAPS, params={"limit": 1})
    through.put(f"{MAPS}/one", json=config_map("one", a="b"))
    read, write = proxy.requests
    assert (read.method, read.path, read.query, read.status) == ("GET", MAPS, {"limit": "1"}, 200)
    assert (write.method, write.path, json.loads(write.body)["data"]) == ("PUT", f"{MAPS}/one", {"a": "b"})
    assert proxy.writes("configmaps") == [write]


def test_events_of_a_watch_come_as_they_happen(http, through, stored):
    with through.stream("GET", MAPS, params=WATCH) as response:
        seen = events(response)
        assert [next(seen), next(seen)] == ["ADDED", "ADDED"]
        http.delete(f"{MAPS}/one")
        assert next(seen) == "DELETED"


@pytest.mark.parametrize("status", [403, 409, 429, 500, 503])
def test_an_error_is_answered_as_the_api_server_would_and_the_request_stays_out(
    proxy, through, stored, status
):
    with proxy.suffering(Answer(status, methods=("DELETE",), path="configmaps", retry_after=3)):
        answer = through.delete(f"{MAPS}/one")
        assert (answer.status_code, answer.headers["Retry-After"]) == (status, "3")
        assert (answer.json()["kind"], answer.json()["code"]) == ("Status", status)
        assert names(through.get(MAPS)) == stored
    assert proxy.writes() == []
    assert through.delete(f"{MAPS}/one").status_code == 200


def test_a_fault_is_over_after_its_times(proxy, through):
    with proxy.suffering(Answer(503, times=2)):
        assert [through.get(MAPS).status_code for _ in range(4)] == [503, 503, 200, 200]


def test_a_cut_breaks_what_is_open_and_refuses_what_is_new(proxy, through, stored):
    with through.stream("GET", MAPS, params=WATCH) as response:
        seen = events(response)
        next(seen)
        with proxy.cut():
            with pytest.raises(httpx.TransportError):
                list(seen)
            with pytest.raises(httpx.ConnectError):
                through.get(MAPS)
    assert names(through.get(MAPS)) == stored


def test_a_dead_api_server_is_a_broken_connection(proxy, through, monkeypatch):
    # A port where nothing listens.
    monkeypatch.setattr(proxy, "_server", type("Dead", (), {"url": "https://127.0.0.1:1"}))
    with pytest.raises(httpx.TransportError):
        through.get(MAPS)


def test_a_delay_delays(proxy, through):
    with proxy.suffering(Delay(0.5)):
        started = time.monotonic()
        assert through.get(MAPS).status_code == 200
        assert time.monotonic() - started >= 0.5


def test_what_hangs_stays_open_without_an_answer(proxy, through):
    with proxy.suffering(Hang()), pytest.raises(httpx.ReadTimeout):
        through.get(MAPS, timeout=0.5)
    assert through.get(MAPS).status_code == 200


def test_an_open_watch_hangs_without_a_word_and_for_good(http, proxy, through, stored):
    with through.stream("GET", MAPS, params=WATCH) as response:
        seen = events(response)
        assert [next(seen), next(seen)] == ["ADDED", "ADDED"]
        with proxy.suffering(Hang(watch=True)):
            http.delete(f"{MAPS}/one")
            # Not the watch.
            assert names(through.get(MAPS)) == ["two"]
        with pytest.raises(httpx.ReadTimeout):
            next(seen)


def test_a_new_watch_can_be_told_that_its_version_is_too_old(proxy, through):
    with proxy.suffering(Answer(410, watch=True)):
        answer = through.get(MAPS, params=WATCH)
        assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
        assert through.get(MAPS).status_code == 200


def test_an_open_watch_can_be_told_that_its_version_is_too_old(proxy, through, stored):
    with through.stream("GET", MAPS, params=WATCH) as response:
        lines = response.iter_lines()
        next(lines), next(lines)
        with proxy.suffering(GoneEvent(watch=True)):
            [last] = [json.loads(line) for line in lines]
    assert (last["type"], last["object"]["code"]) == ("ERROR", 410)


def test_a_watch_can_be_ended_politely(proxy, through, stored):
    with proxy.suffering(EndWatch(0.5)):
        assert list(events_of(through)) == ["ADDED", "ADDED"]


def events_of(through):
    with through.stream("GET", MAPS, params=WATCH) as response:
        yield from events(response)


def test_a_connection_breaks_in_the_middle_of_an_answer(proxy, through, stored):
    with proxy.suffering(CutAfter(100)), pytest.raises(httpx.TransportError):
        through.get(MAPS)


def test_an_answer_is_lost_after_the_api_server_has_obeyed(http, proxy, through, stored):
    with proxy.suffering(CutAfter(0, methods=("DELETE",))), pytest.raises(httpx.TransportError):
        through.delete(f"{MAPS}/one")
    assert names(http.get(MAPS)) == ["two"]
    [delete] = proxy.writes()
    assert delete.status is None


def test_a_request_may_come_long_after_its_client_has_gone(http, proxy, through, stored):
    through.timeout = 0.3
    with proxy.suffering(Late(methods=("DELETE",))):
        with pytest.raises(httpx.TimeoutException):
            through.delete(f"{MAPS}/one")
        assert names(http.get(MAPS)) == ["one", "two"]
    deadline = time.monotonic() + 5
    while not proxy.writes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert names(http.get(MAPS)) == ["two"]


@pytest.mark.parametrize("items", [0, 1])
def test_a_list_can_be_short_and_look_complete(http, proxy, through, stored, items):
    with proxy.suffering(ShortList(items)):
        short = through.get(MAPS, params={"limit": 2, "labelSelector": "of=proxy"})
        single = through.get(f"{MAPS}/one")
    assert names(short) == stored[:items]
    assert "continue" not in short.json()["metadata"]
    assert single.json()["metadata"]["name"] == "one"


def test_a_client_that_goes_away_takes_its_watch_from_the_api_server(api_server, proxy, through):
    with through.stream("GET", MAPS, params=WATCH):
        assert upstream_connections(proxy) == 1
    through.close()
    deadline = time.monotonic() + 5
    while upstream_connections(proxy) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert upstream_connections(proxy) == 0


def upstream_connections(proxy):
    return len(proxy._session.connector._acquired)


def test_the_end_leaves_no_thread(api_server, proxies):
    before = threading.active_count()
    with proxies():
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
