"""A real HAProxy as Ray starts it, with our rules, in front of doubles of replicas."""

import asyncio
import json
import shutil
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from ray.serve._private import haproxy as rays
from ray.serve._private.common import RequestProtocol

from endpoint_operator.local.ports import free_port


class Replica(BaseHTTPRequestHandler):
    """Answers as the request's header says: with a status, as JSON or text, or not at all."""

    def do_GET(self):
        """Answer the proxy, which asks whether a replica lives, and others."""
        status, _, kind = self.headers.get("x-wanted", "200 application/json").partition(" ")
        self._answer(int(status), kind, b"")

    do_OPTIONS = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        time.sleep(float(self.headers.get("x-takes", "0")))
        status, _, kind = self.headers.get("x-wanted", "200 application/json").partition(" ")
        if kind == "nothing":
            self.close_connection = True
        else:
            self._answer(int(status), kind, body)

    def _answer(self, status, kind, body):
        told = {"by": self.server.name, "path": self.path, "size": len(body)}
        if self.headers.get("x-request-disconnect-disabled") != "?1":
            told["watched"] = "by Serve"
        if limit := self.headers.get("x-request-timeout-seconds"):
            told["limit"] = limit
        answer = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def running(folder, backends, hard_stop_seconds=120, **options):
    """Yield a client of HAProxy as Ray starts it, Ray's object for it, and the runner for that.

    `options` are further ones of Ray's.
    """
    port = free_port()
    config = rays.HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        stats_port=free_port(),
        metrics_port=free_port(),
        http_options=rays.HTTPOptions(host="127.0.0.1", port=port),
        hard_stop_after_s=hard_stop_seconds,
        # As the chart and `modelendpoint run` set it.
        bufsize=256 * 1024,
        **options,
    )
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        command = shutil.which("model-endpoints-haproxy", path=str(Path(sys.executable).parent))
        patch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", command)
        # Ray has read the variable when it was imported.
        patch.setattr(rays, "RAY_SERVE_HAPROXY_BINARY_PATH", command)
        started = rays.HAProxyApi(config, backends, str(folder / "haproxy.cfg"))
        runner.run(started.start())
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                yield client, started, runner
        finally:
            runner.run(started.stop())


def backend(name, prefix, replicas, fallback):
    servers = [server(f"{name}-{number}", url) for number, url in enumerate(replicas)]
    return rays.BackendConfig(
        # As Ray names it: test_the_names_of_rays_backends_are_those_that_the_rules_use.
        name=f"http-{name}",
        path_prefix=prefix,
        app_name=name,
        servers=servers,
        fallback_server=server("fallback", fallback),
        protocol=RequestProtocol.HTTP,
    )


def server(name, url):
    address = urlsplit(url)
    return rays.ServerConfig(name=name, host=address.hostname, port=address.port)


def ask(proxy, content, path="/predict", **headers):
    return proxy.post(path, content=content, headers=headers).json()
