"""The operator asks Ray's dashboard for numbers of replicas, over real HTTP, from a double of it."""

import asyncio
import json
import logging
import time
from http.server import BaseHTTPRequestHandler

import pytest

from endpoint_operator.controller.dashboard import SHORTEST_INTERVAL_SECONDS, DashboardClient, count_replicas
from endpoint_operator.controller.decide.conditions import Replicas
from tests.unit.http_double import serving

STATES = ("RUNNING", "RUNNING", "STARTING", "STOPPING")
DETAILS = {
    "applications": {"a": {"deployments": {"Model": {"replicas": [{"state": state} for state in STATES]}}}}
}


class Dashboard(BaseHTTPRequestHandler):
    """Answers with `DETAILS`, whoever has the token, while the server's `status` is 200."""

    def do_GET(self):
        allowed = self.headers["Authorization"] == "Bearer secret"
        body = json.dumps(DETAILS).encode()
        self.send_response(self.server.status if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Be quiet."""


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    return file


def test_replicas_that_stop_are_not_reported(token):
    with serving(Dashboard, status=200) as url:
        status = DashboardClient(url, token, interval=0, patience=30)
        assert asyncio.run(status.replicas("1")) == {"a": Replicas(total=3, ready=2)}
        assert not status.unreachable


def test_it_is_not_asked_again_before_the_interval_is_over(token):
    with serving(Dashboard, status=200) as url:
        status = DashboardClient(url, token, interval=1000, patience=30)
        first = asyncio.run(status.replicas("1"))
    assert asyncio.run(status.replicas("1")) == first
    assert 990 < status.requeue_after <= 1000


def test_it_is_asked_again_soon_when_the_service_has_changed(token):
    with serving(Dashboard, status=200) as url:
        status = DashboardClient(url, token, interval=1000, patience=30)
        asyncio.run(status.replicas("1"))
    assert asyncio.run(status.replicas("2")) is not None
    time.sleep(SHORTEST_INTERVAL_SECONDS)
    assert asyncio.run(status.replicas("1")) is not None
    assert asyncio.run(status.replicas("2")) is None


def test_silence_after_an_answer_is_a_loss_and_is_said_once(token, caplog):
    with serving(Dashboard, status=200) as url:
        status = DashboardClient(url, token, interval=0, patience=0.05)
        asyncio.run(status.replicas("1"))
    with caplog.at_level(logging.WARNING):
        assert [asyncio.run(status.replicas("1")) for _ in range(3)] == [None] * 3
    time.sleep(0.06)
    assert status.unreachable
    assert len(caplog.records) == 1


@pytest.mark.parametrize("missing", ["the answer", "the token"])
def test_a_dashboard_that_has_never_answered_is_no_loss_and_is_said_once(token, caplog, missing):
    with serving(Dashboard, status=503 if missing == "the answer" else 200) as url:
        if missing == "the token":
            token.unlink()
        status = DashboardClient(url, token, interval=0, patience=0)
        with caplog.at_level(logging.WARNING):
            assert [asyncio.run(status.replicas("1")) for _ in range(3)] == [None] * 3
    assert not status.unreachable
    assert len(caplog.records) == 1


def test_nobody_is_asked_without_an_address():
    status = DashboardClient("", None, interval=0, patience=0)
    assert asyncio.run(status.replicas("1")) is None
    assert status.requeue_after is None


def test_replicas_that_stop_do_not_count():
    states = ["RUNNING", "STARTING", "STOPPING"]
    replicas = [{"state": state} for state in states]
    details = {"applications": {"a": {"deployments": {"Model": {"replicas": replicas}}}}}
    assert count_replicas(details) == {"a": Replicas(total=2, ready=1)}
