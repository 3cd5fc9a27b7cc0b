"""The ModelEndpoints of one namespace, as their authors and readers see them."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
from pydantic import ValidationError

from endpoint_operator.api.profiles import Profiles
from endpoint_operator.api.types import GROUP, KIND, PLURAL, VERSION, parse_endpoint
from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.harness.documents import document

_APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}
_MERGE: Final = {"Content-Type": "application/merge-patch+json"}


class Endpoints:
    """Writes specs and reads statuses."""

    def __init__(self, http: httpx.Client, namespace: str) -> None:
        self.http = http
        self.namespace = namespace
        self.path = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"

    def create(self, *names: str, **spec: Any) -> None:
        """Create endpoints of these names."""
        for name in names:
            # For a moment after a change of the CRD the API server asks for patience.
            while (answer := self.http.post(self.path, json=document(name, **spec))).status_code == 429:
                time.sleep(float(answer.headers.get("Retry-After", 1)))
            answer.raise_for_status()

    def create_many(self, names: Iterable[str], **spec: Any) -> None:
        """Create endpoints as fast as the API server takes them."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.create(name, **spec), names))

    def change(self, name: str, **spec: Any) -> None:
        """Change fields of an endpoint's spec."""
        self._merge(name, {"spec": spec})

    def label(self, name: str, **labels: str) -> None:
        """Put labels and annotations on an endpoint."""
        self._merge(name, {"metadata": {"labels": labels, "annotations": labels}})

    def apply_status(self, name: str, manager: str, status: dict[str, Any]) -> None:
        """Apply a part of an endpoint's status as another controller."""
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "status": status}
        parameters = {"fieldManager": manager}
        path = f"{self.path}/{name}/status"
        self.http.patch(path, params=parameters, json=body, headers=_APPLY).raise_for_status()

    def delete(self, *names: str) -> None:
        """Delete endpoints."""
        for name in names:
            self.http.delete(f"{self.path}/{name}").raise_for_status()

    def endpoint(self, name: str) -> dict[str, Any]:
        """Return an endpoint as it is stored."""
        return self.http.get(f"{self.path}/{name}").raise_for_status().json()

    def endpoints(self) -> list[dict[str, Any]]:
        """Return all endpoints as they are stored."""
        return self.http.get(self.path, timeout=30).raise_for_status().json()["items"]

    def names(self) -> set[str]:
        """Return the names of all endpoints."""
        return {stored["metadata"]["name"] for stored in self.endpoints()}

    def status(self, name: str) -> dict[str, Any]:
        """Return an endpoint's status; empty if it has none."""
        return self.endpoint(name).get("status", {})

    def condition(self, name: str, kind: str = "Ready") -> tuple[str, str]:
        """Return status and reason of a condition, empty if there is none."""
        for condition in self.status(name).get("conditions", []):
            if condition["type"] == kind:
                return condition["status"], condition["reason"]
        return "", ""

    def is_ready(self, *names: str) -> bool:
        """Return whether these endpoints are Ready as they are written now."""
        return all(shows_ready(self.endpoint(name)) for name in names)

    def all_ready(self) -> bool:
        """Return whether every endpoint is Ready as it is written now."""
        return all(map(shows_ready, self.endpoints()))

    def expected(self, profiles: Profiles) -> str:
        """Return the document of all endpoints that are stored and valid."""
        found = []
        for stored in self.endpoints():
            try:
                found.append(parse_endpoint(stored))
            except ValidationError:
                continue
        return compile_serve_config(found, profiles).document

    def _merge(self, name: str, changes: dict[str, Any]) -> None:
        self.http.patch(f"{self.path}/{name}", json=changes, headers=_MERGE).raise_for_status()


def shows_ready(stored: dict[str, Any]) -> bool:
    """Return whether an endpoint is Ready, and as it is written now."""
    status, metadata = stored.get("status", {}), stored["metadata"]
    ready = {c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"} == {"True"}
    return ready and status.get("observedGeneration") == metadata["generation"]
