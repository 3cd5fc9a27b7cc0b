"""What the gateway makes of the answers that come through the proxy, here a server that gives any of them."""

import asyncio
import socket

import pytest
from aiohttp import web

from serve_app.errors import ModelNotReadyError, OverloadedError
from serve_app.proxy_route import ProxyRoute

BODY = b'{"model": "a", "text": "b"}'


def ask(answer, headers=None):
    """Send one request for model "a" to a server that gives `answer`; return the reply and the requests."""

    async def scenario():
        seen = []

        async def handle(request):
            seen.append((request.path, await request.read(), request.headers))
            return answer

        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        try:
            return await predict(f"http://{host}:{port}", headers or {}), seen
        finally:
            await runner.cleanup()

    return asyncio.run(scenario())


async def predict(address, headers):
    route = ProxyRoute(address)
    try:
        return await route.predict("a", BODY, headers)
    finally:
        await route.close()


def test_a_models_answer_is_passed_on():
    reply, seen = ask(web.Response(text='{"label": "x"}', content_type="application/json"))
    assert (reply.status, reply.body, reply.content_type) == (200, b'{"label": "x"}', "application/json")
    [(path, body, _)] = seen
    assert (path, body) == ("/v2/models/a/predict", BODY)


def test_so_is_a_models_refusal_with_the_time_to_wait():
    answer = web.Response(
        text='{"error": "e"}', status=503, content_type="application/json", headers={"Retry-After": "7"}
    )
    reply, _ = ask(answer)
    assert (reply.status, reply.body, reply.headers) == (503, b'{"error": "e"}', {"retry-after": "7"})


def test_the_identifier_of_a_request_goes_along_and_nothing_else():
    _, [(_, _, headers)] = ask(web.json_response({}), {"x-request-id": "r1", "authorization": "secret"})
    assert headers["X-Request-ID"] == "r1"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers


def test_what_serve_itself_refuses_is_told_in_json():
    with pytest.raises(OverloadedError, match="^a has too many requests waiting$"):
        ask(web.Response(text="Request dropped due to backpressure", status=429))


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_replica_that_died_with_the_request_does_not_get_another_one_killed(status):
    with pytest.raises(ModelNotReadyError, match="^a lost this request; send it again$"):
        ask(web.Response(text="<html>", status=status, content_type="text/html"))


def test_the_proxy_may_have_no_replica_to_send_it_to():
    reply, _ = ask(web.Response(text="<html>", status=503, content_type="text/html"))
    assert reply is None


def test_the_proxy_may_not_be_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert asyncio.run(predict(f"http://127.0.0.1:{free.getsockname()[1]}", {})) is None
