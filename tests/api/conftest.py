"""A real API server that knows ModelEndpoints, for all tests of this folder."""

import contextlib
import re
import secrets

import pytest

from hack.cluster.kubectl import Kubectl
from hack.errors import CannotBuildError
from hack.toolchain.binaries import binary_path
from tests.harness.api_server.control_plane import PROGRAMS, client, control_plane
from tests.harness.api_server.crds import CRD_NAME, install_model_endpoints, install_ray_services
from tests.harness.api_server.fault_proxy import fault_proxy
from tests.harness.documents import ray_service
from tests.harness.kuberay.controller import kuberay
from tests.harness.operator_process import SHORT
from tests.harness.scene import a_neighbour, a_peer, a_scene
from tests.harness.service import Service

# Of the simulated KubeRay; the real one's is 2 s.
CYCLE_SECONDS = 0.1


def pytest_configure(config):
    # Ray says it of each document; which fields we write is decided elsewhere.
    config.addinivalue_line("filterwarnings", "ignore:The `metrics_interval_s` field:DeprecationWarning")


def pytest_collection_finish(session):
    """Build what is missing before the first test, where no test's time limit applies and progress shows."""
    wanted = any("api_server" in item.fixturenames for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    # The fixture meets the same error again, and only the tests that need it fail.
    with contextlib.suppress(CannotBuildError), capture.global_and_fixture_disabled():
        for name in PROGRAMS:
            # To the standard error, which a worker of xdist has in common with the whole run.
            binary_path(name)


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
    install_model_endpoints(kubectl)
    return kubectl.get(CRD_NAME)


@pytest.fixture(scope="session")
def proxies(api_server):
    """Return a context manager that runs a fault proxy in front of the API server."""
    return lambda: fault_proxy(api_server)


@pytest.fixture
def proxy(proxies):
    with proxies() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def ray_services(kubectl):
    """KubeRay's own CRD, installed."""
    install_ray_services(kubectl)


@pytest.fixture
def namespace(http, request):
    """A namespace of the test's own; it stays, as everything in it, until the API server ends."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    name = f"{words[:50].strip('-')}-{secrets.token_hex(2)}"
    http.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
    return name


@pytest.fixture
def ray(http, ray_services, namespace):
    """A simulated KubeRay, and a RayService as the chart leaves it."""
    path = f"/apis/ray.io/v1/namespaces/{namespace}/rayservices"
    http.post(path, json=ray_service()).raise_for_status()
    with kuberay(http, namespace, "ray", CYCLE_SECONDS) as controller:
        yield controller


@pytest.fixture
def service(http, namespace, ray):
    return Service(http, namespace, ray.cycle)


@pytest.fixture
def with_dashboard():
    """Whether the operator asks Ray's dashboard; `without_dashboard` says no."""
    return True


@pytest.fixture
def settings():
    """The operator's settings, besides those that the scene makes."""
    return SHORT


@pytest.fixture
def scene(api_server, http, crd, ray_services, namespace, tmp_path, settings, with_dashboard):
    """The operator, not started yet, and all around it; the invariants are checked at the end."""
    with a_scene(
        api_server, http, namespace, tmp_path, CYCLE_SECONDS, settings, with_dashboard=with_dashboard
    ) as scene:
        yield scene
        assert scene.violations() == []


@pytest.fixture
def second(scene, api_server, tmp_path):
    """Another operator of the same namespace."""
    folder = tmp_path / "second"
    folder.mkdir()
    with a_peer(scene, api_server, folder) as peer:
        yield peer


@pytest.fixture
def neighbour(scene, api_server, tmp_path):
    """The operator of a second release in the same namespace."""
    folder = tmp_path / "neighbour"
    folder.mkdir()
    with a_neighbour(scene, api_server, folder) as operator:
        yield operator


@pytest.fixture
def other_scene(tmp_path):
    """A scene on an API server of its own, and kubectl for it: for what would hurt all other tests."""
    with control_plane() as server, client(server) as http:
        kubectl = Kubectl(server)
        install_model_endpoints(kubectl)
        install_ray_services(kubectl)
        with a_scene(server, http, "default", tmp_path, CYCLE_SECONDS) as scene:
            yield scene, kubectl


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Show what the operator wrote where a test of it failed."""
    report = yield
    for name in ("scene", "other_scene"):
        found = item.funcargs.get(name) if report.failed else None
        if found is not None:
            scene = found[0] if isinstance(found, tuple) else found
            report.sections.append(("the operator", scene.operator.output()))
    if report.failed and "second" in item.funcargs:
        report.sections.append(("the second operator", item.funcargs["second"].operator.output()))
    return report
