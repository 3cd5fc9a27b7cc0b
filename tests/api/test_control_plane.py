"""How a control plane starts and ends: beside others, on a taken port, without an end of its own."""

import shutil
import socket
import subprocess
import sys

import httpx
import psutil
import pytest

from hack.cluster.kubectl import Kubectl
from tests.harness.api_server import control_plane as module
from tests.harness.api_server.control_plane import START_SECONDS, StartError, client, control_plane

STARTS_ONE = """
import signal
from tests.harness.api_server.control_plane import control_plane
with control_plane() as server:
    print(server.folder, flush=True)
    signal.pause()
"""


def descendants():
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_the_end_leaves_no_process_and_no_file():
    before = descendants()
    with control_plane() as server:
        assert len(descendants() - before) == 2
        folder = server.folder
    assert descendants() == before
    assert not folder.exists()


def test_two_at_once_know_nothing_of_each_other(api_server, kubectl):
    with control_plane() as other:
        Kubectl(other)("create", "namespace", "only-here")
        assert "only-here" not in kubectl("get", "namespaces")
        assert other.url != api_server.url


def test_a_port_that_is_taken_is_left_for_another(monkeypatch):
    free_port = module.free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [free_port(), taken.getsockname()[1]]
        monkeypatch.setattr(module, "free_port", ports.pop)
        with control_plane() as server, client(server) as http:
            assert http.get("/readyz").text == "ok"
    assert ports == []


def test_a_failing_start_shows_the_log(monkeypatch):
    broken = ["sh", "-c", "echo the disk is full; exit 3"]
    monkeypatch.setattr(module, "_etcd_command", lambda folder: broken)
    with pytest.raises(StartError, match="etcd ended with status 3(.|\n)*the disk is full"), control_plane():
        pass


def test_an_api_server_that_died_comes_back_with_its_data():
    with control_plane() as server:
        kubectl = Kubectl(server)
        kubectl("create", "namespace", "lasting")
        server.kill_api_server()
        with client(server) as http, pytest.raises(httpx.ConnectError):
            http.get("/readyz")
        server.start_api_server()
        assert "lasting" in kubectl("get", "namespaces")
        before = descendants()
    assert len(before - descendants()) == 2


def test_without_a_token_nothing_can_be_read(api_server):
    with client(api_server) as http:
        del http.headers["Authorization"]
        assert http.get("/api/v1/namespaces").status_code == 403


def test_controllers_finish_what_is_deleted():
    with control_plane(controllers=True) as server:
        kubectl = Kubectl(server)
        kubectl("create", "namespace", "short-lived")
        kubectl("delete", "namespace", "short-lived", f"--timeout={START_SECONDS}s")
        assert "short-lived" not in kubectl("get", "namespaces")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed process")
def test_a_killed_test_run_leaves_no_process(request):
    run = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE], cwd=request.config.rootpath, stdout=subprocess.PIPE, text=True
    )
    with run:
        folder = run.stdout.readline().strip()
        programs = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    _, alive = psutil.wait_procs(programs, timeout=10)
    # Nobody is left to do it.
    shutil.rmtree(folder)
    assert (len(programs), alive) == (2, [])
