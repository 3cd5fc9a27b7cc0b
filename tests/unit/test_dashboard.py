"""The operator asks Ray's dashboard what Serve does, over real HTTP, from a double of it."""

import asyncio
import contextlib
import json
import logging
from http.server import BaseHTTPRequestHandler

import pytest

from endpoint_operator.controller.observed.rayservice import Replicas
from endpoint_operator.controller.ray import dashboard as module
from endpoint_operator.controller.ray.dashboard import DashboardClient
from tests.harness.builders import until
from tests.unit.http_double import serving

DETAILS = {"applications": {"a": {"status": "RUNNING"}}}


class Dashboard(BaseHTTPRequestHandler):
    """Answers with `DETAILS`, whoever has the token, while the server's `status` is 200."""

    def do_GET(self):
        self.server.asked.append(self.path)
        allowed = self.headers["Authorization"] == "Bearer secret"
        body = json.dumps(DETAILS).encode()
        self.send_response(self.server.status if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Be quiet."""


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    return file


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(module, "SHORTEST_INTERVAL_SECONDS", 0.01)


@contextlib.asynccontextmanager
async def running(client, changes):
    task = asyncio.create_task(client.run(lambda: changes.append(client.report)))
    try:
        yield
    finally:
        task.cancel()


def run(story):
    async def limited():
        async with asyncio.timeout(20):
            await story()

    asyncio.run(limited())


def test_an_answer_is_of_the_cluster_that_was_active_when_it_was_asked(token):
    async def story():
        with serving(Dashboard, status=200, asked=[]) as url:
            client, changes = DashboardClient(url, token, interval=0.01, patience=30), []
            client.ask("one")
            assert client.awaited
            async with running(client, changes):
                await until(lambda: client.report is not None)
                assert not client.awaited
                assert client.report.cluster == "one"
                client.ask("two")
                await until(lambda: client.report.cluster == "two")
        assert client.report.applications["a"].status == "RUNNING"
        assert client.report.applications["a"].replicas == Replicas(0, 0)

    run(story)


def test_an_answer_that_stays_wakes_nobody(token):
    async def story():
        with serving(Dashboard, status=200, asked=[]) as url:
            client, changes = DashboardClient(url, token, interval=0.01, patience=30), []
            client.ask("one")
            async with running(client, changes):
                await until(lambda: client.report is not None)
                before = len(changes)
                await asyncio.sleep(0.2)
                assert len(changes) == before

    run(story)


def test_silence_is_told_once_and_the_answer_before_counts_until_it_is_too_old(token, caplog):
    async def story():
        with serving(Dashboard, status=200, asked=[]) as url:
            client, changes = DashboardClient(url, token, interval=0.01, patience=0.3), []
            client.ask("one")
            task = asyncio.create_task(client.run(lambda: changes.append(client.report)))
            await until(lambda: client.report is not None)
        await asyncio.sleep(0.1)
        assert client.report is not None
        await until(lambda: changes[-1] is None)
        assert client.overdue
        task.cancel()

    with caplog.at_level(logging.WARNING, "endpoint_operator"):
        run(story)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("url", ["http://ray:8265x", "http://[::1"])
def test_no_error_ends_the_questions(url):
    async def story():
        client = DashboardClient(url, None, 0.01, 0.1)
        client.ask("one")
        asking = asyncio.create_task(client.run(lambda: None))
        await asyncio.sleep(0.1)
        assert not asking.done()
        asking.cancel()

    run(story)


def test_a_token_that_the_head_does_not_know_is_no_answer_and_is_told_from_silence(token):
    async def story():
        token.write_text("of the next Ray cluster")
        with serving(Dashboard, status=200, asked=[]) as url:
            client = DashboardClient(url, token, interval=0.01, patience=0.1)
            client.ask("one")
            async with running(client, []):
                await until(lambda: client.overdue)
                assert client.locked_out
                assert not client.awaited
                assert client.report is None
                token.write_text("secret")
                await until(lambda: client.report is not None)

    run(story)


@pytest.mark.parametrize("missing", ["the answer", "the token"])
def test_a_dashboard_that_has_never_answered_is_overdue_after_a_while(token, caplog, missing):
    async def story():
        with serving(Dashboard, status=503 if missing == "the answer" else 200, asked=[]) as url:
            if missing == "the token":
                token.unlink()
            client = DashboardClient(url, token, interval=0.01, patience=0.2)
            client.ask("one")
            assert not client.overdue
            async with running(client, []):
                await until(lambda: client.overdue)

    with caplog.at_level(logging.WARNING, "endpoint_operator"):
        run(story)
    assert len(caplog.records) == 1


def test_it_is_not_asked_and_not_missed_before_there_is_a_cluster(token):
    async def story():
        client = DashboardClient("http://127.0.0.1:9", token, interval=0.01, patience=0)
        async with running(client, []):
            await asyncio.sleep(0.1)
            assert not client.overdue
            assert client.report is None

    run(story)


def test_nobody_is_asked_without_an_address():
    async def story():
        client = DashboardClient("", None, interval=0, patience=0)
        client.ask("one")
        await client.run(lambda: pytest.fail("nothing can change"))
        assert client.report is None
        assert not client.overdue

    run(story)


def test_it_is_asked_soon_when_somebody_wants_it(token):
    async def story():
        with serving(Dashboard, status=200, asked=[]) as url:
            client, changes = DashboardClient(url, token, interval=1000, patience=30), []
            async with running(client, changes):
                await asyncio.sleep(0.05)
                client.ask("one")
                await until(lambda: client.report is not None)

    run(story)


def test_while_somebody_hurries_it_is_asked_again_and_again(token):
    async def story():
        asked = []
        with serving(Dashboard, status=200, asked=asked) as url:
            client = DashboardClient(url, token, interval=1000, patience=30)
            client.ask("one")
            client.hurry(True)
            async with running(client, []):
                await until(lambda: len(asked) >= 3)

    run(story)
