"""Kubernetes events: what is worth one, and how they are created without flooding the API server."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from endpoint_operator.api.status import REASONS, ConditionType, ModelEndpointStatus, Reason
from endpoint_operator.controller.decide.upgrade import FAILURES
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.rayservice import RayService
from endpoint_operator.kube.client import FIELD_MANAGER, KubeClient
from endpoint_operator.kube.errors import KubeError
from endpoint_operator.kube.kinds import MODEL_ENDPOINT, RAY_SERVICE, Kind

logger = logging.getLogger(__name__)

# A token bucket: at most BURST events at once, and one more per SECONDS_PER_EVENT.
BURST: Final = 25
SECONDS_PER_EVENT: Final = 2.0

# The API server rejects notes of more than 1024 bytes.
LONGEST_NOTE: Final = 1000


@dataclass(frozen=True)
class Event:
    """One event about one object."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str
    kind: Kind
    name: str
    uid: str

    def to_manifest(self, namespace: str, now: datetime) -> dict[str, Any]:
        """Return the event as an object of events.k8s.io/v1."""
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self.name}-", "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": self.type,
            "reason": self.reason,
            "action": "Reconcile",
            "note": self.note.encode()[:LONGEST_NOTE].decode(errors="ignore"),
            "reportingController": FIELD_MANAGER,
            "reportingInstance": FIELD_MANAGER,
            "regarding": {
                "apiVersion": self.kind.api_version,
                "kind": self.kind.kind,
                "name": self.name,
                "namespace": namespace,
                "uid": self.uid,
            },
        }


class EventRecorder:
    """Creates events; those above the rate limit are counted and dropped."""

    def __init__(self, client: KubeClient, namespace: str, metrics: Metrics) -> None:
        self._client = client
        self._namespace = namespace
        self._metrics = metrics
        self._tokens = float(BURST)
        self._refilled_at = 0.0

    async def record(self, events: Iterable[Event]) -> None:
        """Create the events; an event that cannot be created is logged and skipped."""
        for event in events:
            if not self._take_token():
                self._metrics.events_dropped.inc()
                continue
            try:
                await self._client.create_event(event.to_manifest(self._namespace, datetime.now(UTC)))
            except KubeError as error:
                logger.info("%s", error)

    def _take_token(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(BURST, self._tokens + (now - self._refilled_at) / SECONDS_PER_EVENT)
        self._refilled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def status_events(observed: ObservedEndpoint, status: ModelEndpointStatus) -> Iterator[Event]:
    """Yield an event for a change of the reason between the stored status of an endpoint and `status`."""

    def about(kind: Literal["Normal", "Warning"], reason: str, note: str) -> Event:
        return Event(kind, reason, note, MODEL_ENDPOINT, observed.name, observed.uid)

    before = observed.status
    state = status.condition(ConditionType.RECONCILING)
    if state and state.reason != before.reason:
        kind: Literal["Normal", "Warning"] = "Warning" if _is_bad(Reason(state.reason)) else "Normal"
        yield about(kind, state.reason, state.message or state.reason)
    blocked = status.condition(ConditionType.UPGRADE_BLOCKED)
    if blocked and not before.condition(ConditionType.UPGRADE_BLOCKED):
        yield about("Warning", blocked.type, blocked.message)


def drift_event(service: RayService, name: str) -> Event:
    """Return the event that somebody else's change of the Serve config was undone."""
    note = "spec.serveConfigV2 was edited by hand; it follows from the ModelEndpoints and was put right."
    return Event("Warning", "DriftCorrected", note, RAY_SERVICE, name, service.uid)


def _is_bad(reason: Reason) -> bool:
    return REASONS[reason].stalled or REASONS[reason].ready == "Unknown" or reason in FAILURES.values()
