"""The load generator's connections, against a server that answers as the body says."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from endpoint_operator.load.connections import Connections
from endpoint_operator.local.ports import free_port
from tests.harness.builders import run

ANSWERS = {
    b"good": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"parts": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"last": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    b"busy": b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
    b"odd": b"something else\r\n\r\n",
    b"gone": b"",
}


@asynccontextmanager
async def connections(patience_seconds=5, most=10):
    """Yield connections to a server, and how many it has accepted; it never answers to "late"."""
    accepted = []

    async def serve(reader, writer):
        accepted.append(writer)
        while head := await reader.read(1000):
            body = head.partition(b"\r\n\r\n")[2]
            if body == b"late":
                continue
            writer.write(ANSWERS[body])
            if body in (b"last", b"gone"):
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = Connections(f"http://127.0.0.1:{port}/path", patience_seconds, most)
        yield found, accepted
        found.close()


def statuses(*bodies, **settings):
    """Return the statuses of the answers, one after the other, and the number of connections."""

    async def scenario():
        async with connections(**settings) as (found, accepted):
            return [await found.post(body) for body in bodies], len(accepted)

    return run(scenario())


def test_one_connection_serves_one_request_after_the_other():
    assert statuses(b"good", b"busy", b"parts", b"good") == ([200, 429, 200, 200], 1)


@pytest.mark.parametrize(("ending", "status"), [(b"last", 200), (b"gone", 0), (b"odd", 0)])
def test_one_that_ends_is_followed_by_another(ending, status):
    assert statuses(ending, b"good") == ([status, 200], 2)


def test_an_answer_that_takes_too_long_is_none():
    assert statuses(b"late", b"good", patience_seconds=0.2) == ([0, 200], 2)


@pytest.mark.parametrize(("most", "used"), [(10, 5), (2, 2)])
def test_requests_at_once_have_connections_of_their_own_up_to_the_most(most, used):
    async def scenario():
        async with connections(most=most) as (found, accepted):
            return await asyncio.gather(*(found.post(b"good") for _ in range(5))), len(accepted)

    assert run(scenario()) == ([200] * 5, used)


def test_a_server_that_is_not_there_answers_nothing():
    assert run(Connections(f"http://127.0.0.1:{free_port()}/", 1, 1).post(b"good")) == 0


@pytest.mark.timeout(20)
def test_a_server_that_lets_nobody_in_is_not_waited_for():
    # The system accepts one more than the server asks for, and is silent to the next.
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),
    ):
        found = Connections(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.2, 1)
        assert run(found.post(b"good")) == 0
