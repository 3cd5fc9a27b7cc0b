"""What the simulated KubeRay asks of the API server: one RayService, its status, and events about it."""

import copy
from typing import Any, Final

import httpx

from tests.harness.kuberay.status import now

# The name under which the real one owns the fields that it writes.
MANAGER: Final = {"fieldManager": "kuberay-operator"}


class RayServices:
    """Access to the RayService of this name."""

    def __init__(self, http: httpx.Client, namespace: str, name: str) -> None:
        self._http = http
        self._namespace = namespace
        self._path = f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}"
        # As of KubeRay 1.7: client-go's new recorder merges events of one reason, keeps the first note, and
        # writes the second of them and then none for 6 minutes (tools/events/event_broadcaster.go).
        self.merges_notes = False
        self._events: dict[tuple[str, str], str] = {}

    def get(self) -> dict[str, Any] | None:
        """Return the RayService, None if there is none."""
        answer = self._http.get(self._path)
        return None if answer.status_code == 404 else _content(answer)

    def replace(self, service: dict[str, Any], finalizers: list[str]) -> None:
        """Write the whole object, as KubeRay does, with other finalizers."""
        changed = copy.deepcopy(service)
        changed["metadata"]["finalizers"] = finalizers
        _content(self._http.put(self._path, params=MANAGER, json=changed))

    def write_status(self, service: dict[str, Any], status: dict[str, Any]) -> None:
        """Write the status; a conflict if the object has changed since it was read."""
        changed = service | {"status": status}
        _content(self._http.put(f"{self._path}/status", params=MANAGER, json=changed))

    def record(self, service: dict[str, Any], kind: str, reason: str, message: str) -> None:
        """Record an event about the RayService; a repeated one is counted, as client-go does."""
        path = f"/api/v1/namespaces/{self._namespace}/events"
        if self.merges_notes:
            message = next((note for known, note in self._events if known == reason), message)
        if existing := self._events.get((reason, message)):
            answer = self._http.get(f"{path}/{existing}")
            if answer.is_success and not (self.merges_notes and answer.json()["count"] > 1):
                change = {"count": answer.json()["count"] + 1, "lastTimestamp": now()}
                merge = {"Content-Type": "application/merge-patch+json"}
                _content(self._http.patch(f"{path}/{existing}", json=change, headers=merge))
            if answer.is_success:
                return
        metadata = service["metadata"]
        about = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        event = {
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": self._namespace},
            "involvedObject": about | {"apiVersion": "ray.io/v1", "kind": "RayService"},
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "source": {"component": "rayservice-controller"},
        }
        stored = _content(self._http.post(path, json=event))
        self._events[reason, message] = stored["metadata"]["name"]


def _content(answer: httpx.Response) -> Any:
    answer.raise_for_status()
    return answer.json()
