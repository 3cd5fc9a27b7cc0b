import json
from http.server import BaseHTTPRequestHandler

import pytest

from endpoint_operator.local.serve_client import ServeClient
from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.harness.builders import MACHINE, endpoint
from tests.unit.http_double import serving


class Dashboard(BaseHTTPRequestHandler):
    """Keeps the config that it is given."""

    def do_PUT(self):
        self.server.given.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.parametrize(("haproxy", "route"), [(True, "/v2/models/a"), (False, None)])
def test_behind_rays_own_proxy_only_the_gateway_has_a_route(monkeypatch, haproxy, route):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    given = []
    with serving(Dashboard, given=given) as url:
        ServeClient(url, None, haproxy=haproxy).put(compile_serve_config([endpoint("a")], MACHINE).document)
    routes = {each["name"]: each["route_prefix"] for each in given[0]["applications"]}
    assert routes == {"gateway": "/", "a": route}
