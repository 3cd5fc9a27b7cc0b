"""Our rules in the configuration that Ray writes, read by the real HAProxy; the replicas are doubles."""

import asyncio
import json
import shutil
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from ray.serve._private import haproxy as rays
from ray.serve._private.common import RequestProtocol

from endpoint_operator.local.ports import free_port
from serve_app.http.haproxy import with_rules
from tests.unit.http_double import serving


class Replica(BaseHTTPRequestHandler):
    """Answers as the request's header says: with a status, as JSON or text, or not at all."""

    def do_GET(self):
        """Answer the proxy, which asks whether a replica lives, and others."""
        self._answer(200, "application/json", b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        status, _, kind = self.headers.get("x-wanted", "200 application/json").partition(" ")
        if kind == "nothing":
            self.close_connection = True
        else:
            self._answer(int(status), kind, body)

    def _answer(self, status, kind, body):
        told = {"by": self.server.name, "path": self.path, "size": len(body)}
        if self.headers.get("x-request-disconnect-disabled") != "?1":
            told["watched"] = "by Serve"
        answer = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """A client of the proxy in front of the gateway, a model "a", and a model "idle" that has no replica."""
    with (
        serving(Replica, name="gateway") as gateway,
        serving(Replica, name="a") as model,
        serving(Replica, name="fallback") as fallback,
    ):
        folder = tmp_path_factory.mktemp("haproxy")
        port = free_port()
        config = rays.HAProxyConfig(
            socket_path=str(folder / "admin.sock"),
            server_state_base=str(folder),
            server_state_file=str(folder / "state"),
            stats_port=free_port(),
            metrics_port=free_port(),
            http_options=rays.HTTPOptions(host="127.0.0.1", port=port),
        )
        backends = {
            "gateway": _backend("gateway", "/", [gateway], fallback),
            "a": _backend("a", "/v2/models/a", [model], fallback),
            "idle": _backend("idle", "/v2/models/idle", [], fallback),
        }
        with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
            command = shutil.which("model-endpoints-haproxy", path=str(Path(sys.executable).parent))
            patch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", command)
            # Ray has read the variable when it was imported.
            patch.setattr(rays, "RAY_SERVE_HAPROXY_BINARY_PATH", command)
            started = rays.HAProxyApi(config, backends, str(folder / "haproxy.cfg"))
            runner.run(started.start())
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                    yield client
            finally:
                runner.run(started.stop())


def _backend(name, prefix, replicas, fallback):
    servers = [_server(f"{name}-{number}", url) for number, url in enumerate(replicas)]
    return rays.BackendConfig(
        name=name,
        path_prefix=prefix,
        app_name=name,
        servers=servers,
        fallback_server=_server("fallback", fallback),
        protocol=RequestProtocol.HTTP,
    )


def _server(name, url):
    address = urlsplit(url)
    return rays.ServerConfig(name=name, host=address.hostname, port=address.port)


def ask(proxy, content, path="/predict", **headers):
    return proxy.post(path, content=content, headers=headers).json()


@pytest.mark.parametrize("path", ["/predict", "/predict/"])
@pytest.mark.parametrize("body", [b'{"model": "a", "text": "t"}', b'{"texts":["\\u00e4"],"model":"a"}'])
def test_a_request_goes_to_the_model_that_its_body_names(proxy, path, body):
    assert ask(proxy, body, path) == {"by": "a", "path": "/v2/models/a/predict", "size": len(body)}


def test_so_does_one_that_arrives_in_parts(proxy):
    parts = iter([b'{"text": "t", ', b'"model"', b': "a"}'])
    assert ask(proxy, parts, **{"content-length": "27"})["by"] == "a"


def test_a_model_that_is_not_there_is_the_gateways_to_tell_of(proxy):
    answer = ask(proxy, b'{"model": "b"}')
    assert (answer["by"], answer["path"]) == ("gateway", "/predict")


def test_a_model_without_a_replica_is_too(proxy):
    answer = ask(proxy, b'{"model": "idle"}')
    assert (answer["by"], answer["path"]) == ("gateway", "/predict")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b'{"text": "t"}',
        b'{"model": null}',
        b'{"model": ["a"]}',
        b'{"model": "../../-/routes"}',
        b'{"model": "a/predict?b"}',
        b'["model", "a"]',
        json.dumps({"texts": ["word " * 10] * 1000, "model": "a"}).encode(),
    ],
    ids=lambda body: body[:30].decode(),
)
def test_what_names_no_model_is_the_gateways_to_understand(proxy, body):
    assert ask(proxy, body) == {"by": "gateway", "path": "/predict", "size": len(body)}


def test_other_paths_and_methods_stay_as_they_are(proxy):
    assert ask(proxy, b'{"model": "a"}', "/predictions")["path"] == "/predictions"
    assert ask(proxy, b'{"model": "b"}', "/v2/models/a/infer")["path"] == "/v2/models/a/infer"
    assert proxy.get("/predict").json()["path"] == "/predict"


@pytest.mark.parametrize("path", ["/predict", "/v2/models/a/predict"])
@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ("429 text/plain", 429, "overloaded"),
        ("500 text/plain", 503, "model_not_ready"),
        ("503 text/html", 503, "model_not_ready"),
        ("200 nothing", 503, "model_not_ready"),
    ],
)
def test_errors_in_text_become_json(proxy, path, wanted, status, code):
    response = proxy.post(path, content=b'{"model": "a"}', headers={"x-wanted": wanted})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["retry-after"] == "1"
    assert ask(proxy, b'{"model": "a"}')["by"] == "a"


@pytest.mark.parametrize("status", [422, 429, 500, 503])
def test_errors_of_a_model_stay_as_they_are(proxy, status):
    wanted = {"x-wanted": f"{status} application/json"}
    response = proxy.post("/predict", content=b'{"model": "a"}', headers=wanted)
    assert (response.status_code, response.json()["by"]) == (status, "a")


def test_another_configuration_stays_as_it_is(tmp_path, capsys):
    assert with_rules("frontend other\n", tmp_path) == "frontend other\n"
    assert "/predict goes through the gateway" in capsys.readouterr().err
