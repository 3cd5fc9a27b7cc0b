"""The RayService of a test, as its author and its readers see it."""

import json
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import httpx

from endpoint_operator.api.types import ModelEndpoint
from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.harness.builders import CLUSTER

_APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}

# Only a test that fails waits so long: a minute with the cycle of tests/api.
PATIENCE_CYCLES: Final = 600

Value = TypeVar("Value")


class Service:
    """Writes the RayService's document by hand and reads what KubeRay says; times are in its cycles."""

    def __init__(self, http: httpx.Client, namespace: str, cycle: float) -> None:
        self.path = f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/ray"
        self.cycle = cycle
        self._http = http
        self._events = f"/api/v1/namespaces/{namespace}/events"

    def write(self, document: str) -> None:
        """Apply `document` as another field manager than the operator's."""
        body = {"apiVersion": "ray.io/v1", "kind": "RayService", "spec": {"serveConfigV2": document}}
        parameters = {"fieldManager": "test", "force": "true"}
        self._http.patch(self.path, params=parameters, json=body, headers=_APPLY).raise_for_status()

    def edit(self, **spec: Any) -> None:
        """Change fields of the spec as a person with `kubectl edit` does."""
        self._http.patch(self.path, json={"spec": spec}, headers=_MERGE).raise_for_status()

    def serve(self, *endpoints: ModelEndpoint) -> None:
        """Apply the document of these endpoints."""
        self.write(compile_serve_config(endpoints, CLUSTER).document)

    def running(self, *endpoints: ModelEndpoint) -> None:
        """Serve `endpoints` and wait until all that is in the document runs."""
        self.serve(*endpoints)
        names = {"gateway", *(endpoint.name for endpoint in endpoints)}
        self.until(lambda: self.states() == dict.fromkeys(names, "RUNNING"))

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._http.get(self.path).is_success

    @property
    def stored(self) -> dict[str, Any]:
        """The object as it is."""
        return self._http.get(self.path).raise_for_status().json()

    @property
    def document(self) -> str:
        """The Serve config as it is; empty if there is none."""
        return self.stored["spec"].get("serveConfigV2", "")

    @property
    def entries(self) -> dict[str, Any]:
        """The document's applications by name."""
        document = json.loads(self.document or "{}")
        return {entry["name"]: entry for entry in document.get("applications", [])}

    @property
    def status(self) -> dict[str, Any]:
        """What KubeRay says."""
        return self.stored.get("status", {})

    @property
    def active_cluster(self) -> str:
        """Name of the Ray cluster that answers."""
        return self.status["activeServiceStatus"]["rayClusterName"]

    def applications(self, kind: str = "active") -> dict[str, Any]:
        """Return the applications of the active or the pending cluster."""
        return self.status.get(f"{kind}ServiceStatus", {}).get("applicationStatuses", {})

    def states(self, kind: str = "active") -> dict[str, str]:
        """Return the state of each application."""
        return {name: application["status"] for name, application in self.applications(kind).items()}

    def condition(self, kind: str) -> tuple[str, str]:
        """Return a condition's status and reason, empty if there is none."""
        for condition in self.status.get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Return the events of that reason in the namespace."""
        items = self._http.get(self._events).json()["items"]
        return [event for event in items if event["reason"] == reason]

    def until(self, holds: Callable[[], Value], cycles: int = PATIENCE_CYCLES) -> Value:
        """Wait until `holds()`, and return what it returned."""
        deadline = time.monotonic() + cycles * self.cycle
        while not (value := holds()):
            assert time.monotonic() < deadline, json.dumps(self.status, indent=1)
            time.sleep(self.cycle / 5)
        return value

    def for_cycles(self, cycles: int) -> None:
        """Wait so long that KubeRay has done its work `cycles` times."""
        time.sleep(cycles * self.cycle)
