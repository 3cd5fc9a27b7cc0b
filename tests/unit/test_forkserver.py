"""Which processes are workers that may be forked, and what passes between them and the fork server."""

import json
import os
import socket
import struct

import pytest

from serve_app.forkserver import client
from serve_app.forkserver.wire import WorkerRequest, receive, same_imports, send

SCRIPT = "/venv/lib/ray/_private/workers/default_worker.py"
RAYLET = "--raylet-name=/tmp/ray/s/sockets/raylet"


def test_a_worker_is_known_by_its_script_and_its_raylet():
    command = ["/venv/bin/python", "-u", SCRIPT, RAYLET, "--worker-id=7"]
    assert client.worker_command(command) == [SCRIPT, RAYLET, "--worker-id=7"]


@pytest.mark.parametrize(
    "command",
    [
        ["/venv/bin/python"],
        ["/venv/bin/python", SCRIPT],
        ["/venv/bin/python", "/venv/lib/ray/dashboard/agent.py", RAYLET],
        ["/venv/bin/python", "-m", "serve_app.forkserver.server", "/tmp/ray/s/sockets/raylet.f"],
    ],
)
def test_other_processes_are_left_alone(command):
    assert client.worker_command(command) is None


def test_only_what_ray_sets_for_each_worker_may_differ():
    usual = {"PATH": "/bin", "RAY_JOB_ID": "01"}
    assert same_imports(usual, {**usual, "RAY_JOB_ID": "02"})
    assert not same_imports(usual, {**usual, "OMP_NUM_THREADS": "1"})
    assert not same_imports(usual, {"RAY_JOB_ID": "01"})


@pytest.fixture
def pair():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_a_request_arrives_with_its_streams(pair):
    request = WorkerRequest(["worker.py", "--worker-id=7"], {"A": "ä" * 5_000}, "/tmp", 5, 1000)
    send(pair[0], request)
    received, streams = receive(pair[1])
    assert received == request
    assert received.worker == "--worker-id=7"
    assert [os.fstat(stream).st_ino for stream in streams] == [os.fstat(number).st_ino for number in range(3)]
    for stream in streams:
        os.close(stream)


@pytest.mark.parametrize("body", [b"", b"not JSON", json.dumps({"command": []}).encode(), b"[]"])
def test_a_broken_request_is_refused(pair, body):
    pair[0].sendall(struct.pack("!I", len(body)) + body)
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(ValueError, match="not a request for a worker"):
        receive(pair[1])
