"""What clients of all kinds send through the real HAProxy: models in bodies, old clients, pages elsewhere."""

import json
import socket
from contextlib import ExitStack

import pytest

from serve_app.http.entrances import ENTRANCES
from serve_app.http.haproxy import CORS_VARIABLE
from tests.serve.proxied import Replica, ask, backend, running
from tests.unit.http_double import serving


@pytest.mark.parametrize("path", ENTRANCES)
@pytest.mark.parametrize("slash", ["", "/"])
def test_so_it_is_at_each_path_where_the_body_names_the_model(proxy, path, slash):
    body = b'{"query": "q", "model": "a"}'
    assert ask(proxy, body, path + slash) == {"by": "a", "path": f"/v2/models/a{path}", "size": len(body)}


def test_a_body_of_200_kib_is_read_too(proxy):
    body = json.dumps({"input": ["word " * 10] * 4000, "model": "a"}).encode()
    assert 200_000 < len(body) < 250_000
    assert ask(proxy, body, "/v1/embeddings")["by"] == "a"


def test_of_two_equal_keys_a_replica_never_answers_for_another_model(proxy):
    # HAProxy takes the first one. The replica takes the last one, and refuses a name that is not its own.
    assert ask(proxy, b'{"model": "a", "model": "b"}')["by"] == "a"


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
PAGE = "https://app.example.com"


@pytest.fixture(scope="module")
def cors(tmp_path_factory):
    """A function that starts a proxy which allows these origins, and returns a client of it."""
    with ExitStack() as stack:
        replica, fallback = (
            stack.enter_context(serving(Replica, name=name)) for name in ("gateway", "fallback")
        )
        backends = {"gateway": backend("gateway", "/", [replica], fallback)}

        def start(origins):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(CORS_VARIABLE, origins)
                proxy = running(tmp_path_factory.mktemp("cors"), backends)
                return stack.enter_context(proxy)[0]

        yield start


def allowed(response):
    return response.headers.get("access-control-allow-origin")


@pytest.mark.parametrize("origins", [PAGE, f"http://a:80, {PAGE}", "*"])
def test_a_page_of_an_origin_that_is_listed_may_ask(cors, origins):
    proxy = cors(origins)
    asked = proxy.options("/v1/embeddings", headers={"origin": PAGE, **PREFLIGHT})
    assert (asked.status_code, allowed(asked)) == (204, PAGE)
    assert "content-type" in asked.headers["access-control-allow-headers"]
    answer = proxy.post("/predict", content=b"{}", headers={"origin": PAGE})
    assert (answer.json()["by"], allowed(answer)) == ("gateway", PAGE)
    # Errors are for the page to read, too, also those that HAProxy makes.
    error = proxy.post("/predict", content=b"{}", headers={"origin": PAGE, "x-wanted": "429 text/plain"})
    assert (error.status_code, error.json()["code"], allowed(error)) == (429, "overloaded", PAGE)
    assert error.headers["vary"] == "origin"
    other = proxy.post("/predict", content=b"{}", headers={"origin": "https://other"})
    assert allowed(other) == ("https://other" if origins == "*" else None)
    assert allowed(proxy.post("/predict", content=b"{}")) is None


def test_what_is_no_origin_is_no_rule(cors):
    proxy = cors("https://a if TRUE, ftp://b, \n http-request deny")
    answer = proxy.post("/predict", content=b"{}", headers={"origin": PAGE})
    assert (answer.status_code, allowed(answer)) == (200, None)


def test_no_origin_is_allowed_by_default(proxy):
    asked = proxy.request("OPTIONS", "/predict", headers={"origin": PAGE, **PREFLIGHT})
    assert allowed(asked) is None


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict HTTP/1.0\r\nContent-Length: 14\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
        b"Content-Length: 14\r\nConnection: close\r\n\r\n",
    ],
    ids=["HTTP/1.0", "100-continue"],
)
def test_old_and_careful_clients_are_answered(proxy, head):
    with socket.create_connection((proxy.base_url.host, proxy.base_url.port), timeout=5) as connection:
        connection.sendall(head)
        if b"Expect" in head:
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b'{"model": "a"}')
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
    assert b'"by": "a"' in answer
