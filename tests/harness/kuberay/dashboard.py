"""A double of Ray's head for what the operator asks of it: the dashboard, and the gateway's usage."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serve_app.contract import USAGE_PATH, UsageReport
from tests.harness.kuberay.controller import KubeRay


class Dashboard:
    """The address to which the head Service leads; tests set its attributes while it runs."""

    def __init__(self, ray: KubeRay, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.ray = ray
        self.down = False
        self.delay_seconds = 0.0
        self.requests = 0
        # What the gateway says that models have used; None for one that does not say it.
        self.usage: UsageReport | None = None


class _Handler(BaseHTTPRequestHandler):
    dashboard: Dashboard

    def do_GET(self) -> None:
        if self.path == USAGE_PATH:
            usage = self.dashboard.usage
            self._answer(404 if usage is None else 200, usage.model_dump_json() if usage else "{}")
            return
        self.dashboard.requests += 1
        time.sleep(self.dashboard.delay_seconds)
        details = None if self.dashboard.down else self.dashboard.ray.details()
        self._answer(200 if details is not None else 503, json.dumps(details or {}))

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


@contextmanager
def dashboard_of(ray: KubeRay) -> Iterator[Dashboard]:
    """Answer for the Ray cluster that serves, until the end of the block."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    dashboard = handler.dashboard = Dashboard(ray, server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield dashboard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
