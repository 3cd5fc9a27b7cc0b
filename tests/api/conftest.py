"""A real API server that knows ModelEndpoints, for all tests of this folder."""

import contextlib
import time
from pathlib import Path

import pytest

from tests.cluster.binaries import binary_path
from tests.cluster.catalogue import CATALOGUE
from tests.cluster.control_plane import client, control_plane
from tests.cluster.errors import CannotBuildError, KubectlError
from tests.cluster.kubectl import Kubectl

CRD = Path(__file__).parents[2] / "charts/model-endpoints/files/modelendpoints.yaml"
CRD_NAME = "customresourcedefinitions/modelendpoints.serving.modelendpoint.dev"


def pytest_collection_finish(session):
    """Build what is missing before the first test, where no test's time limit applies and progress shows."""
    wanted = any("api_server" in item.fixturenames for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    terminal = session.config.get_terminal_writer()
    # The fixture meets the same error again, and only the tests that need it fail.
    with contextlib.suppress(CannotBuildError):
        for name in CATALOGUE:
            binary_path(name, write=lambda text: terminal.write(text, flush=True))


@pytest.fixture(scope="session")
def api_server():
    with control_plane() as server:
        yield server


@pytest.fixture(scope="session")
def kubectl(api_server):
    return Kubectl(api_server)


@pytest.fixture(scope="session")
def http(api_server):
    with client(api_server) as http:
        yield http


@pytest.fixture(scope="session")
def crd(kubectl):
    """The committed CRD, installed; returns it as the API server stores it."""
    kubectl("apply", "--server-side", "--validate=strict", f"--filename={CRD}")
    kubectl("wait", "--for=condition=Established", "--timeout=30s", CRD_NAME)
    _wait_until_served(kubectl)
    return kubectl.get(CRD_NAME)


def _wait_until_served(kubectl):
    # Established says that the name is taken; the path is there a moment later.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(KubectlError):
            kubectl("get", "modelendpoints")
            return
        time.sleep(0.1)
    raise AssertionError("the API server does not serve modelendpoints 30 s after their CRD was Established")
