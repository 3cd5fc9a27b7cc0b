"""Write what differs: rollouts that must not be lost, then the Serve config, then statuses and events."""

import logging
from asyncio import get_running_loop
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

from endpoint_operator.api.status import ModelEndpointStatus
from endpoint_operator.controller.concurrency import gather_limited
from endpoint_operator.controller.decide.desired import DesiredState, Observation
from endpoint_operator.controller.events import EventRecorder, drift_event, status_events
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.observe import CONCURRENCY, Observer
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.rayservice import RayService
from endpoint_operator.controller.settings import Settings
from endpoint_operator.kube.client import KubeClient
from endpoint_operator.kube.errors import ConflictError, InvalidError, KubeError, NotFoundError
from endpoint_operator.serveconfig.document import read_entries

logger = logging.getLogger(__name__)

# Statuses written per reconciliation, so that a change does not wait for a thousand of them.
STATUSES_AT_ONCE: Final = 200

# Names in one line of the log.
LONGEST_LIST: Final = 10

# Attempts to write the Serve config while KubeRay updates the status of the same object.
_WRITES_AT_ONCE: Final = 5


class Applier:
    """Writes the Serve config of one RayService and the statuses of its endpoints."""

    def __init__(self, settings: Settings, client: KubeClient, observer: Observer, metrics: Metrics) -> None:
        self._settings = settings
        self._client = client
        self._observer = observer
        self._metrics = metrics
        self._events = EventRecorder(client, settings.namespace, metrics)
        # The last document that this process found or made right. It tells an edit by hand from our own
        # change.
        self._right_document = ""
        # When the API server has refused the status of an endpoint, by uid.
        self._refused: dict[str, float] = {}

    async def apply(self, observed: Observation, desired: DesiredState) -> bool:
        """Write what differs, and return whether more statuses wait to be written.

        Raises KubeError if the Serve config could not be written; the statuses are written all the same.
        """
        endpoints = {endpoint.name: endpoint for endpoint in observed.endpoints}
        first = [endpoints[name] for name in sorted(desired.write_first)]
        # A conflict among these holds the Serve config up: a restart in between must not lose them.
        await gather_limited(partial(self._write_status, desired=desired), first, CONCURRENCY)
        problem: KubeError | None = None
        if observed.view.service is not None:
            try:
                await self._write_document(observed.view.service, desired)
            except KubeError as error:
                problem = error
        changed = [
            endpoint
            for endpoint in observed.endpoints
            if endpoint.name not in desired.write_first and self._is_due(endpoint, desired)
        ]
        await self._write_statuses(changed[:STATUSES_AT_ONCE], desired)
        if problem is not None:
            raise problem
        return len(changed) > STATUSES_AT_ONCE

    async def _write_document(self, service: RayService, desired: DesiredState) -> None:
        document = desired.document
        assert document is not None
        size = len(document.encode())
        self._metrics.serve_config_bytes.set(size)
        if document == service.document:
            self._right_document = document
            return
        drifted = document == self._right_document
        forced = document.rstrip("\n") == service.document.rstrip("\n")
        await self._write_over(service, document)
        self._right_document = document
        self._metrics.writes.inc()
        logger.info("Wrote the Serve config, %d bytes: %s.", size, differences(service.document, document))
        if forced:
            self._metrics.forced_pushes.inc()
            logger.warning(
                "Ray lacks applications that it was given; KubeRay is made to hand them over again."
            )
        elif drifted:
            self._metrics.drifts.inc()
            await self._events.record([drift_event(service, self._settings.ray_service)])
        if size > self._settings.serve_config_alarm_bytes:
            logger.warning(
                "The Serve config has %d bytes; above %d, newcomers are left out.",
                size,
                self._settings.serve_config_limit_bytes,
            )

    async def _write_over(self, service: RayService, document: str) -> None:
        """Write `document` over that of `service`, also if KubeRay updates its status meanwhile."""
        known: RayService | None = service
        for _ in range(_WRITES_AT_ONCE):
            if known is None or (known.uid, known.document) != (service.uid, service.document):
                break
            try:
                written = await self._client.apply_serve_config(known.uid, known.resource_version, document)
            except ConflictError as error:
                self._metrics.conflicts.inc()
                conflict = error
                known = await self._observer.read_service()
            else:
                self._observer.service_written(written)
                return
        raise conflict

    async def _write_statuses(self, endpoints: Sequence[ObservedEndpoint], desired: DesiredState) -> None:
        """Write the statuses; an object that has changed meanwhile is left for the next reconciliation."""

        async def write(endpoint: ObservedEndpoint) -> None:
            try:
                await self._write_status(endpoint, desired)
            except (NotFoundError, ConflictError) as error:
                self._observer.list_soon()
                logger.info("%s", error)

        await gather_limited(write, endpoints, CONCURRENCY)

    async def _write_status(self, endpoint: ObservedEndpoint, desired: DesiredState) -> None:
        """Write one status; what can never be stored concerns this endpoint alone."""
        status = desired.statuses[endpoint.name]
        try:
            content = status.model_dump(mode="json", by_alias=True, exclude_none=True)
            written = await self._client.apply_status(
                endpoint.name, endpoint.uid, endpoint.resource_version, content
            )
        except InvalidError as error:
            logger.warning("A restart would forget it: %s", error)
            self._note_refusal(endpoint, status)
            return
        except KubeError:
            raise
        except Exception:
            logger.exception("The status of %s cannot be written", endpoint.name)
            self._note_refusal(endpoint, status)
            return
        self._refused.pop(endpoint.uid, None)
        self._observer.endpoint_written(written, status)
        self._metrics.status_writes.inc()
        await self._tell(endpoint, status)

    def _note_refusal(self, endpoint: ObservedEndpoint, status: ModelEndpointStatus) -> None:
        self._refused[endpoint.uid] = get_running_loop().time()
        self._observer.status_refused(endpoint, status)

    def _is_due(self, endpoint: ObservedEndpoint, desired: DesiredState) -> bool:
        """Return whether a status has to be written: it differs, or its refusal may be over."""
        if desired.statuses[endpoint.name] != endpoint.status:
            return True
        refused = self._refused.get(endpoint.uid)
        return refused is not None and get_running_loop().time() - refused > self._settings.resync_seconds

    async def _tell(self, endpoint: ObservedEndpoint, status: ModelEndpointStatus) -> None:
        """Log, count and record what has changed in a status that was written."""
        before, after = endpoint.status.rollout, status.rollout
        if status.reason != endpoint.status.reason:
            logger.info("%s: %s", endpoint.name, status.reason)
        if after and after.attempts > (before.attempts if before else 0):
            self._metrics.rollbacks.inc()
            logger.warning("Took a version of %s out: %s", endpoint.name, after.message or after.reason)
        await self._events.record(status_events(endpoint, status))


def differences(before: str, after: str) -> str:
    """Say which applications of two Serve configs differ."""
    old, new = read_entries(before), read_entries(after)
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    groups = (("new", new.keys() - old.keys()), ("changed", changed), ("gone", old.keys() - new.keys()))
    return "; ".join(f"{word} {_names(names)}" for word, names in groups if names) or "the same applications"


def _names(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:LONGEST_LIST])
    return shown if len(names) <= LONGEST_LIST else f"{shown} and {len(names) - LONGEST_LIST} more"
