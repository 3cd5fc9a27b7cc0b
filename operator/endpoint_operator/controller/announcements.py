"""What is worth a Kubernetes event: verdicts about endpoints, and a document put right; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from endpoint_operator.api import types as api
from endpoint_operator.api.status import ConditionType, ModelEndpointStatus, Reason
from endpoint_operator.controller.observed import rayservice as ray_service
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.rayservice import RayService

# Of an event's note.
LONGEST_NOTE: Final = 1000


@dataclass(frozen=True)
class Announcement:
    """One event about one object."""

    kind: Literal["Normal", "Warning"]
    reason: str
    note: str
    regarding: Mapping[str, str]

    def to_event(self, namespace: str, reporter: str, now: datetime) -> dict[str, Any]:
        """Return the event as the API server takes it."""
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self.regarding['name']}-", "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": self.kind,
            "reason": self.reason,
            "action": "Reconcile",
            "note": self.note[:LONGEST_NOTE],
            "reportingController": reporter,
            "reportingInstance": reporter,
            "regarding": {**self.regarding, "namespace": namespace},
        }


def announce_changes(observed: ObservedEndpoint, after: ModelEndpointStatus) -> Iterator[Announcement]:
    """Yield what is new in the status of an endpoint."""
    before = observed.status
    regarding = {
        "apiVersion": f"{api.GROUP}/{api.VERSION}",
        "kind": api.KIND,
        "name": observed.name,
        "uid": observed.uid,
    }
    was, now = _accepted(before), _accepted(after)
    if now != was and now == Reason.ACCEPTED:
        yield Announcement("Normal", "Accepted", "The spec is valid.", regarding)
    elif now != was:
        yield Announcement("Warning", "Rejected", f"{now}: {after.last_error}", regarding)
    reason = _ready(after)
    if reason != _ready(before) and reason in (Reason.ROLLED_BACK, Reason.WITHDRAWN):
        yield Announcement("Warning", str(reason), after.last_error or str(reason), regarding)


def announce_drift(service: RayService, name: str) -> Announcement:
    """Return that somebody else's change of the Serve config is undone."""
    regarding = {
        "apiVersion": f"{ray_service.GROUP}/{ray_service.VERSION}",
        "kind": ray_service.KIND,
        "name": name,
        "uid": service.uid,
    }
    note = "spec.serveConfigV2 was edited by hand; it follows from the ModelEndpoints and was put right."
    return Announcement("Warning", "DriftCorrected", note, regarding)


def _accepted(status: ModelEndpointStatus) -> str:
    return _reason(status, ConditionType.ACCEPTED)


def _ready(status: ModelEndpointStatus) -> str:
    return _reason(status, ConditionType.READY)


def _reason(status: ModelEndpointStatus, kind: ConditionType) -> str:
    return next((condition.reason for condition in status.conditions if condition.type == kind), "")
