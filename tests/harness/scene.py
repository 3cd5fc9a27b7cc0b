"""One test's world: a namespace with endpoints, a RayService under a simulated KubeRay, and the operator."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import httpx

from endpoint_operator.api.types import PLURAL
from tests.harness.access import Account
from tests.harness.api_server.control_plane import ControlPlane, write_kubeconfig
from tests.harness.api_server.fault_proxy import FaultProxy, Request, fault_proxy
from tests.harness.documents import ray_service
from tests.harness.endpoints import Endpoints
from tests.harness.history import Change, History, recorded
from tests.harness.invariants import documents, repetitions, violations
from tests.harness.kuberay.controller import KubeRay, kuberay
from tests.harness.kuberay.dashboard import Dashboard, dashboard_of
from tests.harness.operator_process import SHORT, Operator
from tests.harness.service import Service

# Only a test that fails waits so long.
PATIENCE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1

Value = TypeVar("Value")


class Scene(Endpoints):
    """What tests of the operator do and look at."""

    def __init__(
        self,
        http: httpx.Client,
        namespace: str,
        ray: KubeRay,
        proxy: FaultProxy,
        operator: Operator,
        account: Account,
        history: History,
        dashboard: Dashboard,
    ) -> None:
        super().__init__(http, namespace)
        self.ray = ray
        self.service = Service(http, namespace, ray.cycle)
        self.proxy = proxy
        self.operator = operator
        self.account = account
        self.dashboard = dashboard
        # Applications that a test expects to be withdrawn, and whether it expects a forced push.
        self.may_leave: set[str] = set()
        self.may_push = False
        self._history = history

    def until(self, holds: Callable[[], Value], seconds: float = PATIENCE_SECONDS) -> Value:
        """Wait until `holds()`, and return what it returned."""
        deadline = time.monotonic() + seconds
        while not (value := holds()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not after {seconds} s\n{self._picture()}")
            time.sleep(POLL_SECONDS)
        return value

    def stays(self, holds: Callable[[], object], seconds: float) -> None:
        """Check that `holds()` for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert holds(), self._picture()
            time.sleep(POLL_SECONDS)

    def settle(self, seconds: float = 1.0) -> None:
        """Wait until nothing is written any more: statuses follow the last change of the RayService."""

        def is_quiet() -> bool:
            writes = self.proxy.writes()
            return bool(writes) and time.monotonic() - writes[-1].at > seconds

        self.until(is_quiet)

    def converged(self) -> bool:
        """Return whether the document is that of all endpoints as they are now (I5)."""
        return self.service.document == self.expected(self.operator.profiles)

    def serving(self, *names: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the document is right and these endpoints are Ready."""
        self.until(lambda: self.is_ready(*names) and self.converged(), seconds)

    def begin(self, *names: str) -> None:
        """Create endpoints, start the operator, and wait until they are served."""
        self.create(*names)
        self.operator.start()
        self.serving(*names)

    def restart_if_ended(self) -> None:
        """Start the operator again if it has ended, as Kubernetes does."""
        if not self.operator.running:
            self.operator.start()

    def events(self, about: str) -> list[str]:
        """Return the reason of each event about an object, once for each time that it was counted."""
        answer = self.http.get(f"/api/v1/namespaces/{self.namespace}/events").raise_for_status()
        return [
            event["reason"]
            for event in answer.json()["items"]
            if event["involvedObject"]["name"] == about
            for _ in range(event.get("count") or 1)
        ]

    def remove_service(self) -> None:
        """Delete the RayService and wait until it is gone."""
        self.http.delete(self.service.path).raise_for_status()
        self.until(lambda: not self.service.exists)

    def restore_service(self, document: str = "") -> None:
        """Create the RayService as the chart does, or as a backup with a document does."""
        folder = self.service.path.rpartition("/")[0]
        manifest = ray_service()
        if document:
            manifest["spec"]["serveConfigV2"] = document
        self.http.post(folder, json=manifest).raise_for_status()

    @property
    def writes(self) -> list[Request]:
        """Writes of the RayService that reached the API server."""
        return self.proxy.writes("/rayservices/")

    @property
    def status_writes(self) -> list[Request]:
        """Writes of endpoints' statuses that reached the API server."""
        return self.proxy.writes(f"/{PLURAL}/")

    def history(self) -> list[Change]:
        """Return all versions of the endpoints and of the scene's RayService that were stored."""
        return [
            change
            for change in self._history.changes()
            if change.is_endpoint or change.object["metadata"]["name"] == "ray"
        ]

    def documents(self) -> list[str]:
        """Return each document that the operator has written."""
        return documents(self.history())

    def violations(self) -> list[str]:
        """Return each breach of an invariant until now."""
        history = self.history()
        return [
            *violations(history, self.operator.profiles, self.may_leave, self.may_push),
            *repetitions(list(self.proxy.requests), history),
        ]

    def _picture(self) -> str:
        shown = "\n".join(
            f"{stored['metadata']['name']}: {json.dumps(stored.get('status', {}))}"
            for stored in self.endpoints()[:10]
        )
        status = json.dumps(self.service.status, indent=1)[:5000] if self.service.exists else "none"
        entries = sorted(self.service.entries) if self.service.exists else []
        return f"document {entries}\n{shown}\nRayService {status}"


@contextmanager
def a_scene(
    server: ControlPlane,
    http: httpx.Client,
    namespace: str,
    folder: Path,
    cycle: float,
    settings: Mapping[str, str] = SHORT,
    *,
    with_dashboard: bool = True,
) -> Iterator[Scene]:
    """Set up everything but endpoints in an existing namespace; the operator is not started yet.

    It asks Ray's dashboard `with_dashboard`, as the chart has it.
    """
    with ExitStack() as stack:
        proxy = stack.enter_context(fault_proxy(server))
        ray = stack.enter_context(kuberay(http, namespace, "ray", cycle))
        account = Account(http, namespace)
        account.create()
        dashboard = stack.enter_context(dashboard_of(ray))
        asked = {"SERVE_API_URL": dashboard.url, "USAGE_URL": dashboard.url} if with_dashboard else {}
        operator = _operator(folder, server, proxy, account, {**settings, **asked})
        stack.callback(operator.kill)
        history = stack.enter_context(recorded(http, namespace))
        scene = Scene(http, namespace, ray, proxy, operator, account, history, dashboard)
        scene.restore_service()
        yield scene


@dataclass(frozen=True)
class Peer:
    """One of two operators of a scene, and its way to the API server."""

    operator: Operator
    proxy: FaultProxy


@contextmanager
def a_peer(scene: Scene, server: ControlPlane, folder: Path) -> Iterator[Peer]:
    """Prepare a second operator of the scene's namespace, with the same account."""
    with fault_proxy(server) as proxy, ExitStack() as stack:
        operator = _operator(folder, server, proxy, scene.account, scene.operator.settings)
        stack.callback(operator.kill)
        yield Peer(operator, proxy)


@contextmanager
def a_neighbour(scene: Scene, server: ControlPlane, folder: Path) -> Iterator[Operator]:
    """Prepare the operator of a second release in the scene's namespace; nothing runs its RayService."""
    name = "neighbour"
    path = scene.service.path.rpartition("/")[0]
    scene.http.post(path, json=ray_service(name)).raise_for_status()
    account = Account(scene.http, scene.namespace, name)
    account.create()
    settings = {**SHORT, "RAY_SERVICE": name, "DEFAULT_RUNTIME": "false"}
    with fault_proxy(server) as proxy, ExitStack() as stack:
        operator = _operator(folder, server, proxy, account, settings)
        stack.callback(operator.kill)
        yield operator


def _operator(
    folder: Path, server: ControlPlane, proxy: FaultProxy, account: Account, settings: Mapping[str, str]
) -> Operator:
    kubeconfig = folder / "kubeconfig"
    write_kubeconfig(kubeconfig, proxy.url, server.ca, account.token())
    return Operator(folder, kubeconfig, account.namespace, settings)
