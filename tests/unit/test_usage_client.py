"""The operator asks the gateway what models have used, over real HTTP, from a double of it."""

import asyncio
import contextlib
import logging
from http.server import BaseHTTPRequestHandler

import pytest

from endpoint_operator.controller.ray.usage import UsageClient
from tests.harness.builders import run, until
from tests.unit.http_double import serving
from tests.unit.small_loop import Scene
from tests.unit.test_usage import minute, report


class Gateway(BaseHTTPRequestHandler):
    """Answers with the server's `body` whoever has the token."""

    def do_GET(self):
        self.server.asked.append(self.path)
        allowed = self.headers["Authorization"] == "Bearer secret"
        self.send_response(200 if allowed else 404)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(self.server.body)

    def log_message(self, *arguments):
        """Be quiet."""


BODY = report(1, minute(0, requests=3)).model_dump_json().encode()


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    return file


@contextlib.asynccontextmanager
async def running(client, told):
    task = asyncio.create_task(client.run(lambda: told.append(client.report)))
    try:
        yield
    finally:
        task.cancel()


def test_it_asks_while_there_is_a_ray_cluster_and_tells_of_each_answer(token):
    async def story():
        with serving(Gateway, body=BODY, asked=(asked := [])) as url:
            client, told = UsageClient(url, token, 0.01), []
            async with running(client, told):
                await asyncio.sleep(0.05)
                assert asked == []
                client.wanted = True
                await until(lambda: len(told) > 1)
            assert set(asked) == {"/v2/usage"}
            assert told[0].models["a"].minutes[0].requests == 3

    run(story())


def test_a_gateway_that_says_nothing_is_told_once_and_the_last_answer_stays(tmp_path, token, caplog):
    async def story():
        with serving(Gateway, body=BODY, asked=(asked := [])) as url:
            client, told = UsageClient(url, token, 0.01), []
            client.wanted = True
            async with running(client, told):
                await until(lambda: told)
                token.write_text("other")
                count = len(asked)
                await until(lambda: len(asked) > count + 3)
                assert client.report is not None
                token.write_text("secret")
                count = len(told)
                await until(lambda: len(told) > count)

    with caplog.at_level(logging.INFO, "endpoint_operator"):
        run(story())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"now": 1, "models": {"a": 1}}'])
def test_an_answer_that_cannot_be_read_is_none(token, body):
    async def story():
        with serving(Gateway, body=body, asked=(asked := [])) as url:
            client, told = UsageClient(url, token, 0.01), []
            client.wanted = True
            async with running(client, told):
                await until(lambda: len(asked) > 2)
            assert (client.report, told) == (None, [])

    run(story())


def test_without_an_address_nobody_is_asked():
    run(UsageClient("", None, 0.01).run(lambda: None))


def test_the_loop_writes_the_usage_once(tmp_path):
    async def story():
        scene = Scene(tmp_path, "a", "b", settle_seconds=0)
        await scene.serve()
        assert scene.usage.wanted
        scene.usage.report = report(1, minute(0, requests=3))
        assert await scene.reconcile() == ["a"]
        assert scene.world.endpoints["a"]["status"]["usage"]["requests"] == 3
        assert await scene.reconcile() == []
        scene.usage.report = report(1, minute(0, requests=3))
        assert await scene.reconcile() == []

    run(story())
