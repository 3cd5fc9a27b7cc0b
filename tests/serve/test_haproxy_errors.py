"""What HAProxy answers itself has the shape of the protocol that was asked, as the same error elsewhere."""

import json

import pytest

from serve_app.http.entrances import ENTRANCES
from serve_app.http.errors import MalformedRequestError, ModelNotReadyError, OverloadedError
from serve_app.http.shapes import error_reply
from serve_app.protocols import VERBS
from tests.serve.proxied import running

OF_A_MODEL = [f"/v2/models/a/{verb}".rstrip("/") for verb in VERBS]
PATHS = [*ENTRANCES, *OF_A_MODEL, "/v1/models", "/v1/models/a", "/v1/models/a:predict", "/nothing"]


def expected(path, error):
    """Return the body of this error at a path; its sentence is that of the proxy."""
    return json.loads(error_reply(path, error).body)


def sentence_of(document):
    return document["error"]["message"] if isinstance(document["error"], dict) else document["error"]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("wanted", "status", "error"),
    [
        # Serve's own words, and a replica that dies: the one is an answer of the proxy, the other its error.
        ("429 text/plain", 429, OverloadedError),
        ("500 text/plain", 503, ModelNotReadyError),
        ("404 text/plain", 503, ModelNotReadyError),
        ("200 nothing", 503, ModelNotReadyError),
    ],
)
def test_an_error_of_the_proxy_has_the_shape_of_the_path(proxy, path, slash, wanted, status, error):
    response = proxy.post(path + slash, content=b'{"model": "a"}', headers={"x-wanted": wanted})
    document = response.json()
    assert response.status_code == status
    assert document == expected(path, error(sentence_of(document)))
    assert response.headers["content-type"] == "application/json"
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-request-id"]
    assert int(response.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize("path", PATHS)
def test_so_has_that_of_a_proxy_without_routes(nowhere, path):
    response = nowhere.post(path, content=b'{"model": "a"}')
    document = response.json()
    assert response.status_code == 503
    assert "no route yet" in sentence_of(document)
    assert document == expected(path, ModelNotReadyError(sentence_of(document)))


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    with running(tmp_path_factory.mktemp("nowhere"), {}) as (client, _, _):
        yield client


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v2/models/a/rerank", "/predict"])
def test_a_method_that_is_none_is_malformed_in_each_shape(proxy, path):
    response = proxy.request("BREW", path)
    assert (response.status_code, response.json()) == (400, expected(path, MalformedRequestError()))


def test_clients_see_no_header_that_only_the_rules_need(proxy):
    response = proxy.post("/predict", content=b'{"model": "a"}', headers={"x-wanted": "200 nothing"})
    assert response.status_code == 503
    assert not [name for name in response.headers if "proxy" in name]
