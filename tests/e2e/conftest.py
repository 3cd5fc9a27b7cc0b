"""The cluster of `make kind-up` for all tests of this folder; made for them unless it is up already."""

import contextlib
import time
from pathlib import Path

import httpx
import pytest

from hack.cluster import kind
from hack.cluster.helm import Helm
from hack.cluster.kubectl import Kubectl
from hack.cluster.simulated_gpu import GPU_LABEL, set_accelerators
from hack.errors import KubectlError
from tests.e2e import machine
from tests.e2e.release import Release, endpoint

# Its asserts say what they have compared, like those of tests.
pytest.register_assert_rewrite("tests.e2e.watching")

HERE = Path(__file__).parent
LOGS = HERE.parents[1] / "e2e-logs"
# Pods start, images are read from a disk that others use, and Ray has its own pace.
WAIT_SECONDS = 300


# The samples early, because they are timed on a fresh service; the faults late, and the end at the end.
ORDER = (
    "test_cluster",
    "test_models",
    "test_gpu",
    "test_monitoring",
    "test_scale_down",
    "test_security",
    "test_keys",
    "test_logs",
    "test_helm",
    "test_upgrade",
    "test_availability",
    "test_faults",
    "test_hub",
    "test_uninstall",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER))
    for item in items:
        if item.path.is_relative_to(HERE):
            # Making the cluster takes longer on a machine that builds everything for the first time.
            item.add_marker(pytest.mark.timeout(900, func_only=True))


@pytest.fixture(scope="session")
def cluster(request):
    """The cluster; if it was made for the tests, it is removed, and must leave the machine as it was."""
    if kind.is_up():
        yield kind.up()
        return
    before = machine.snapshot()
    try:
        with shown(request.config):
            made = kind.up()
        yield made
    finally:
        # What was made of one that did not come up goes too.
        with shown(request.config):
            kind.down()
    assert machine.snapshot() - before == {}


@contextlib.contextmanager
def shown(config):
    """Let what happens in the block be seen while it happens."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(flush=True)
        yield


@pytest.fixture(scope="session")
def kubectl(cluster):
    return Kubectl(cluster)


@pytest.fixture(scope="session")
def helm(cluster):
    return Helm(cluster)


@pytest.fixture
def namespace(request, kubectl):
    """A namespace for one test; it goes with all that is in it."""
    name = request.node.name.replace("_", "-").lower()[-50:].strip("-")
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--timeout=120s")


@pytest.fixture
def simulated_gpu(kubectl):
    """A function that turns a worker into a node with accelerators; it is a plain worker again afterwards."""
    changed = []

    def add(node, count=1):
        changed.append(node)
        kubectl("label", "node", node, f"{GPU_LABEL}=true")
        set_accelerators(kubectl, [node], count)

    yield add
    for node in changed:
        kubectl("label", "node", node, f"{GPU_LABEL}-")
        set_accelerators(kubectl, [node], 0)


@pytest.fixture(scope="session")
def host_port(cluster):
    """The address on this machine that leads to NodePort 30080."""
    [node] = [node for node in kind.configuration()["nodes"] if "extraPortMappings" in node]
    [mapping] = node["extraPortMappings"]
    return f"http://{mapping['listenAddress']}:{mapping['hostPort']}"


def eventually(question, seconds=WAIT_SECONDS):
    """Return the first answer of `question` that counts as true; it may fail to connect until then."""
    deadline = time.monotonic() + seconds
    trouble = None
    while time.monotonic() < deadline:
        try:
            if answer := question():
                return answer
        except httpx.TransportError as error:
            trouble = error
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s; the last error was {trouble!r}")


@pytest.fixture(scope="session")
def release(kubectl, helm, host_port):
    """The chart, installed with a model that cannot load applied before anything is up."""
    release = Release(kubectl, helm, "models", host_port)
    release.prepare()
    release.install()
    release.apply(endpoint("broken", uri="file:///models/nowhere"))
    release.kubectl("wait", f"rayservice/{release.name}", "--for=condition=Ready", "--timeout=300s")
    yield release
    release.uninstall()
    kubectl("delete", "namespace", "models", "--timeout=180s")


@pytest.fixture(scope="session")
def steady(release):
    """An endpoint that serves all the time, to see whether others are disturbed."""
    release.apply(endpoint("steady"))
    release.wait_ready("steady")
    return "steady"


@pytest.fixture(scope="session")
def accelerator_workers():
    """Names of the pods that test_gpu.py has made, for test_scale_down.py."""
    return []


@pytest.fixture
def note(request, record_property):
    return lambda what, value: record_property(f"{request.node.name}: {what}", value)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Keep what explains a failure in a folder of its own, and say where it is."""
    report = yield
    release = item.funcargs.get("release") if hasattr(item, "funcargs") else None
    if report.failed and release is not None:
        folder = LOGS / item.name
        # The cluster may be gone when the end of the last test has failed; that is then what is reported.
        with contextlib.suppress(KubectlError):
            release.logs(folder)
        report.sections.append(("logs of the cluster", str(folder)))
    return report


def pytest_terminal_summary(terminalreporter):
    """Print what tests measured, whether they passed or not."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and report.user_properties
    ]
    if reports:
        terminalreporter.section("measured")
    for report in reports:
        for name, value in report.user_properties:
            terminalreporter.line(f"{name}: {value}")
