"""What Ray's processes are started with, and how they are ended; nothing here starts Ray."""

import os
import signal
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from endpoint_operator.local import ray as local_ray
from endpoint_operator.local.ray import require_free_port, started_ray
from endpoint_operator.local.serve_client import RayUnavailableError
from endpoint_operator.local.stopping import stop_request
from tests.harness.builders import MACHINE


@pytest.mark.parametrize("host", ["::", "::1", "2001:db8::1"])
def test_an_ipv6_address_is_refused_with_what_to_give(host):
    with pytest.raises(RayUnavailableError) as caught:
        require_free_port(host, 8000)
    assert str(caught.value).startswith(f"--host: got '{host}'; Ray Serve reaches its replicas by IPv4 only")
    assert "127.0.0.1" in str(caught.value)


def test_a_host_without_an_address_is_named():
    with pytest.raises(RayUnavailableError, match="--host: got 'no-such-host.invalid'; must be an IPv4"):
        require_free_port("no-such-host.invalid", 8000)


def test_an_address_of_another_machine_is_named():
    with pytest.raises(
        RayUnavailableError, match="--host: got '192.0.2.1', which is no address of this machine"
    ):
        require_free_port("192.0.2.1", 8000)


def test_a_taken_port_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RayUnavailableError, match=f"port {port} cannot be used"):
            require_free_port("127.0.0.1", port)


def test_calls_between_rays_processes_go_past_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intranet,127.0.0.1")
    variables = local_ray._environment("token")
    assert "http_proxy" not in variables
    assert variables["no_proxy"] == variables["NO_PROXY"]
    exceptions = variables["no_proxy"].split(",")
    assert exceptions[:2] == ["intranet", "127.0.0.1"]
    assert {"localhost", socket.gethostname()} < set(exceptions)


# Stands in for `ray_process`: it starts a process of its own in another session, as Ray does, and never ends.
ENDLESS = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print('{"dashboard": "http://127.0.0.1:1"}', end="\\n", flush=True)
time.sleep(600)
"""


@pytest.fixture
def endless(monkeypatch):
    """Start the double in place of Ray; return what has been started."""
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__([sys.executable, "-c", ENDLESS], **options)
            started.append(psutil.Process(self.pid))

    monkeypatch.setattr(local_ray.subprocess, "Popen", Popen)
    return started


def test_an_interrupt_ends_ray_and_all_that_it_started_at_once(endless):
    ours = []

    def interrupted():
        with started_ray(MACHINE, "127.0.0.1", 1, 2):
            ours.extend([endless[0], *endless[0].children(recursive=True)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(ours) == 2
    assert not any(process.is_running() for process in ours)


def test_a_ray_that_does_not_end_is_ended(endless, monkeypatch):
    monkeypatch.setattr(local_ray, "STOP_TIMEOUT_SECONDS", 0.2)
    with started_ray(MACHINE, "127.0.0.1", 1, 2):
        ours = [endless[0], *endless[0].children(recursive=True)]
    assert not any(process.is_running() for process in ours)


def test_an_interrupt_of_the_shutdown_ends_everything_too(endless):
    """The first Ctrl-C may come after the command has begun to stop for another reason."""
    ours = []

    def interrupted():
        with stop_request(), started_ray(MACHINE, "127.0.0.1", 1, 2):
            ours.extend([endless[0], *endless[0].children(recursive=True)])
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(ours) == 2
    assert not any(process.is_running() for process in ours)


@pytest.mark.parametrize("name", local_ray._GRPC_PORTS)
def test_bounds_of_ports_that_the_user_sets_are_not_mixed_with_ours(name, monkeypatch):
    with local_ray._grpc_ports_of_replicas() as ours:
        assert [*ours] == [*local_ray._GRPC_PORTS]
    monkeypatch.setenv(name, "45000")
    with local_ray._grpc_ports_of_replicas() as ours:
        assert ours == {}
