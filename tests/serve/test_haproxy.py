"""Our rules in the configuration that Ray writes, read by the real HAProxy; the replicas are doubles."""

import json
import os
import socket
import sys
import threading
import time

import pytest
from ray.serve._private import haproxy as rays
from ray.serve._private.common import RequestProtocol
from ray.serve.schema import TargetGroup

from endpoint_operator.api.types import Limits
from serve_app.http.haproxy import LONGEST_REQUEST_SECONDS, StaleRulesError, main, with_rules
from serve_app.http.known_replicas import with_known_replicas
from tests.serve.proxied import Replica, ask, backend, running
from tests.unit.http_double import serving


@pytest.mark.parametrize(
    ("name", "by"), [("a", "a"), ("idle", "gateway"), ("nope", "gateway"), ("a%2Fb", "gateway")]
)
@pytest.mark.parametrize("end", ["", "/"])
def test_a_path_of_kserve_becomes_one_of_the_model(proxy, name, by, end):
    answer = ask(proxy, b"{}", f"/v1/models/{name}:predict{end}")
    assert (answer["by"], answer["path"]) == (by, f"/v2/models/{name}/v1:predict")


@pytest.mark.parametrize(
    "path", ["/v1/models/a", "/v1/models", "/v1/models/a:explain", "/v1/models/a/b:predict"]
)
def test_other_paths_of_kserve_are_the_gateways(proxy, path):
    answer = ask(proxy, b"{}", path)
    assert (answer["by"], answer["path"]) == ("gateway", path)


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
    assert (answer["by"], answer["path"]) == ("gateway", "/v2/models/idle/predict")
    assert ask(proxy, b"{}", "/v2/models/idle/infer")["by"] == "gateway"
    assert proxy.get("/v2/models/idle/ready").json() == {
        "by": "gateway",
        "path": "/v2/models/idle/ready",
        "size": 0,
    }


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
        json.dumps({"texts": ["word " * 10] * 6000, "model": "a"}).encode(),
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


def test_a_client_sets_no_time_limit_of_rays(proxy):
    assert "limit" not in ask(proxy, b'{"model": "a"}', **{"x-request-timeout-seconds": "0"})


def raw(proxy, content, close_half=False):
    """Return all that the proxy answers to the bytes `content`."""
    with socket.create_connection((proxy.base_url.host, proxy.base_url.port), timeout=10) as connection:
        connection.sendall(content)
        if close_half:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            return answer.read()


def test_a_client_that_sends_no_more_gets_its_answer(proxy):
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nX-Takes: 0.5\r\nContent-Length: 14\r\n\r\n"
    request = head + b'{"model": "a"}'
    head, _, body = raw(proxy, request, close_half=True).partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert json.loads(body)["by"] == "a"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A client of the proxy when neither the gateway nor a model has a replica: Ray's own proxy is asked."""
    with serving(Replica, name="fallback") as fallback:
        backends = {
            "gateway": backend("gateway", "/", [], fallback),
            "a": backend("a", "/v2/models/a", [], fallback),
        }
        with running(tmp_path_factory.mktemp("alone"), backends) as (client, _, _):
            yield client


@pytest.mark.parametrize("path", ["/predict", "/v2/models/a/predict"])
def test_rays_own_proxy_may_not_look_for_a_replica_for_ever(alone, path):
    answer = ask(alone, b'{"model": "a"}', path)
    assert (answer["by"], answer["limit"]) == ("fallback", "10")


def test_it_says_at_once_that_a_model_is_not_ready(alone):
    answer = alone.get("/v2/models/a/ready").json()
    assert (answer["by"], answer["limit"]) == ("fallback", "1")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("said", ["404", "408", "500", "503"])
def test_what_it_says_in_text_becomes_json(alone, method, said):
    headers = {"x-wanted": f"{said} text/plain"}
    response = alone.request(method, "/v2/models/a/ready", headers=headers, content=b"{}")
    assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")


def test_a_proxy_without_routes_says_so_in_json(tmp_path):
    with running(tmp_path, {}) as (client, _, _):
        response = client.post("/predict", content=b'{"model": "a"}')
    assert (response.status_code, response.json()["code"]) == (503, "model_not_ready")
    assert "no route yet" in response.json()["error"]


def test_a_request_outlives_changes_of_replicas_and_rays_limit(tmp_path):
    """Ray would end it one second after the first of three reloads."""
    with serving(Replica, name="a") as model, serving(Replica, name="fallback") as fallback:
        backends = {"a": backend("a", "/v2/models/a", [model], fallback)}
        with running(tmp_path, backends, hard_stop_seconds=1) as (client, started, runner):
            slow = threading.Thread(
                target=lambda: answers.append(
                    client.post("/v2/models/a/predict", content=b"{}", headers={"x-takes": "5"}, timeout=20)
                )
            )
            answers = []
            slow.start()
            time.sleep(0.3)
            for replicas in ([model, model], [model], [model, model]):
                started.set_backend_configs({"a": backend("a", "/v2/models/a", replicas, fallback)})
                runner.run(started.reload())
            slow.join()
    assert [answer.status_code for answer in answers] == [200]


def test_replicas_that_a_restarted_controller_does_not_know_yet_go_on(tmp_path):
    """Ray then lists all applications, and no replica of any of them."""
    with (
        serving(Replica, name="gateway") as gateway,
        serving(Replica, name="a") as model,
        serving(Replica, name="fallback") as fallback,
    ):
        prefixes = {"gateway": "/", "a": "/v2/models/a", "idle": "/v2/models/idle"}

        def backends(**replicas):
            return {
                name: backend(name, prefix, replicas.get(name, []), fallback)
                for name, prefix in prefixes.items()
            }

        def reload(**replicas):
            proxy.set_backend_configs(backends(**replicas))
            runner.run(proxy.reload())

        with running(tmp_path, backends(gateway=[gateway], a=[model])) as (client, proxy, runner):
            reload()
            for _ in range(5):
                assert ask(client, b'{"model": "a"}')["by"] == "a"
                assert ask(client, b'{"model": "idle"}')["by"] == "gateway"
            # A model that has lost its replicas has lost them.
            reload(gateway=[gateway])
            assert ask(client, b'{"model": "a"}')["by"] == "gateway"
            reload()
            assert ask(client, b'{"model": "a"}')["by"] == "gateway"


def test_known_replicas_that_cannot_be_kept_or_read_change_nothing(tmp_path):
    empty = "backend http-gateway\n    mode http\nbackend http-a\n    mode http\n"
    full = empty.replace("mode http\n", "server one 127.0.0.1:1 check\n")
    assert with_known_replicas(empty, tmp_path) == empty
    assert with_known_replicas(full, tmp_path / "nowhere") == full
    (tmp_path / "known-replicas.json").write_text("[")
    assert with_known_replicas(empty, tmp_path) == empty
    with_known_replicas(full, tmp_path)
    assert with_known_replicas(empty, tmp_path).count("server one") == 2


def test_no_request_is_allowed_to_take_longer_than_the_proxy_lets_it():
    (bound,) = [
        limit.le for limit in Limits.model_fields["request_timeout_seconds"].metadata if hasattr(limit, "le")
    ]
    assert bound < LONGEST_REQUEST_SECONDS


def test_the_names_of_rays_backends_are_those_that_the_rules_use():
    group = TargetGroup(
        protocol=RequestProtocol.HTTP, route_prefix="/v2/models/a-1", app_name="a-1", targets=[]
    )
    manager = rays.HAProxyManager.__ray_metadata__.modified_class
    assert manager._generate_backend_name(manager, group) == "http-a-1"


def test_rules_that_do_not_fit_are_left_out(tmp_path, monkeypatch, capfd):
    config = tmp_path / "haproxy.cfg"
    config.write_text("frontend other\n")
    with pytest.raises(StaleRulesError):
        with_rules(config.read_text(), tmp_path)
    monkeypatch.setattr(sys, "argv", ["model-endpoints-haproxy", "-c", "-f", str(config)])
    monkeypatch.setattr(os, "execv", lambda binary, arguments: None)
    main()
    assert config.read_text() == "frontend other\n"
    assert "error files" in capfd.readouterr().err
