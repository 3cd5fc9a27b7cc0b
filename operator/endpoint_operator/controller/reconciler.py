"""The level-based loop: wait for a trigger, observe the cluster, decide, and write what differs.

An event says only that something has changed. The state is read from the API server each time. kopf's index
would not do: it keeps objects that were deleted while its watch was disconnected.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from endpoint_operator.controller.concurrency import gather_limited
from endpoint_operator.controller.dashboard import DashboardClient
from endpoint_operator.controller.debounce import Debouncer
from endpoint_operator.controller.decide.decision import Decider, Decision, Snapshot
from endpoint_operator.controller.events import EventRecorder, drift_event, status_events
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint, parse_observed
from endpoint_operator.controller.observed.rayservice import RayService, parse_ray_service
from endpoint_operator.controller.probes import Heartbeat
from endpoint_operator.controller.profiles_file import ProfilesFile
from endpoint_operator.controller.settings import Settings
from endpoint_operator.kube.client import KubeClient
from endpoint_operator.kube.errors import ConflictError, InvalidError, KubeError, NotFoundError

logger = logging.getLogger(__name__)

# Concurrent requests, few enough that the API server can serve its other clients.
CONCURRENCY: Final = 8
# Statuses written per reconciliation, so that a change does not wait for a thousand of them.
STATUSES_AT_ONCE: Final = 200

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0

# KubeRay's clock may differ from ours, and its events are rounded to a second.
CLOCK_TOLERANCE: Final = timedelta(seconds=1)


class IncompleteListError(Exception):
    """A list of ModelEndpoints lacked some that exist, so nothing may be removed because of it."""


@dataclass(frozen=True)
class Result:
    """When to reconcile again if no event comes, as controller-runtime's `Result`."""

    requeue: bool = False
    requeue_after: float | None = None


class Reconciler:
    """Keeps one RayService and the statuses of its endpoints in the desired state."""

    def __init__(
        self,
        settings: Settings,
        client: KubeClient,
        profiles: ProfilesFile,
        dashboard: DashboardClient,
        metrics: Metrics,
        heartbeat: Heartbeat,
    ) -> None:
        base_url = f"http://{settings.ray_service}-serve-svc.{settings.namespace}.svc:8000"
        self._settings = settings
        self._client = client
        self._profiles = profiles
        self._dashboard = dashboard
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._events = EventRecorder(client, settings.namespace, metrics)
        self._debouncer = Debouncer(settings.debounce_seconds, settings.debounce_limit_seconds)
        self._decider = Decider(settings, settings.serve_config_limit_bytes, base_url)
        self._endpoints: dict[str, ObservedEndpoint] = {}
        self._service: RayService | None = None
        self._list_is_due = True
        # When to list again although no event came: a watch may have missed one.
        self._relist_at = 0.0
        # The last document that this process found or made right. It tells an edit by hand from our own
        # change.
        self._right_document = ""
        # The generation that KubeRay has not observed yet, and when it was first seen.
        self._unobserved: tuple[int, datetime] = (0, datetime.now(UTC))

    def endpoint_changed(self, name: str, resource_version: str) -> None:
        """Handle the event of a ModelEndpoint; an event of our own write changes nothing."""
        known = self._endpoints.get(name)
        if known is None or known.resource_version != resource_version:
            self._list_is_due = True
            self._debouncer.trigger()

    def endpoint_deleted(self) -> None:
        """Handle the event that a ModelEndpoint was deleted."""
        self._list_is_due = True
        self._debouncer.trigger()

    def service_changed(self, name: str, resource_version: str) -> None:
        """Handle the event of a RayService; only the configured one matters, and not our own writes."""
        if name != self._settings.ray_service:
            return
        if self._service is None or self._service.resource_version != resource_version:
            self._debouncer.trigger()

    async def run(self) -> None:
        """Reconcile until cancelled; an error is logged, and the next attempt follows after a pause."""
        failures = 0
        while True:
            try:
                with self._metrics.seconds.time():
                    result = await self.reconcile()
            except Exception as error:
                failures += 1
                self._note_failure(error)
                pause = min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS)
                asked_for = error.retry_after if isinstance(error, KubeError) else 0.0
                await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), asked_for))
                continue
            failures = 0
            self._heartbeat.record()
            await self._debouncer.wait(0.0 if result.requeue else result.requeue_after)

    def _note_failure(self, error: Exception) -> None:
        self._list_is_due = True
        self._metrics.errors.inc()
        if isinstance(error, ConflictError):
            self._metrics.conflicts.inc()
            logger.info("Somebody else was faster; looking again: %s", error)
        elif isinstance(error, KubeError | IncompleteListError):
            logger.warning("Nothing was changed: %s", error)
        else:
            logger.exception("Nothing was changed because of an error in the operator")

    async def reconcile(self) -> Result:
        """Observe, decide and write once."""
        self._profiles.reread()
        self._metrics.profiles_file_invalid.set(self._profiles.invalid)
        now = asyncio.get_running_loop().time()
        listed_now = self._list_is_due or now >= self._relist_at
        if listed_now:
            await self._list_endpoints()
            self._relist_at = now + self._settings.resync_seconds * random.uniform(0.8, 1.0)
        service = await self._read_service()
        snapshot = await self._snapshot(service)
        decision = self._decider.decide(
            snapshot, asyncio.get_running_loop().time(), _timestamp(datetime.now(UTC))
        )
        self._metrics.renders.inc()
        if decision.absent and not listed_now:
            self._list_is_due = True
            return Result(requeue=True)
        await self._confirm_absence(decision.absent)
        await self._store_verdicts(decision)
        if service is not None:
            await self._write_document(service, decision)
        self._metrics.show_endpoints(decision.reasons)
        self._metrics.upgrade_blocking_endpoints.set(len(decision.blocking))
        changed = self._changed_statuses(decision)
        await self._write_statuses(changed[:STATUSES_AT_ONCE], decision)
        if len(changed) > STATUSES_AT_ONCE:
            return Result(requeue=True)
        return Result(requeue_after=self._requeue_after(decision))

    async def _list_endpoints(self) -> None:
        self._list_is_due = False
        known = {endpoint.uid: endpoint for endpoint in self._endpoints.values()}
        found = {}
        for manifest in await self._client.list_endpoints():
            metadata = manifest["metadata"]
            old = known.get(metadata["uid"])
            unchanged = old is not None and old.resource_version == metadata["resourceVersion"]
            found[metadata["name"]] = old if old is not None and unchanged else parse_observed(manifest)
        self._endpoints = found

    async def _read_service(self) -> RayService | None:
        manifest = await self._client.get_ray_service()
        self._service = parse_ray_service(manifest) if manifest else None
        return self._service

    async def _snapshot(self, service: RayService | None) -> Snapshot:
        self._metrics.generation_lag.set(service.generation_lag if service else 0)
        return Snapshot(
            endpoints=tuple(self._endpoints.values()),
            service=service,
            profiles=self._profiles.profiles,
            replicas=await self._dashboard.replicas(service.resource_version if service else ""),
            refused=service is not None and await self._config_was_rejected(service),
            dashboard_unreachable=self._dashboard.unreachable,
        )

    async def _config_was_rejected(self, service: RayService) -> bool:
        if not service.is_behind:
            return False
        now = datetime.now(UTC)
        if service.generation != self._unobserved[0]:
            self._unobserved = (service.generation, now)
        since = self._unobserved[1]
        if now < since + timedelta(seconds=self._settings.settle_seconds):
            return False
        try:
            return await self._client.config_rejected_since(service.uid, since + CLOCK_TOLERANCE)
        except KubeError as error:
            # Without events, only the time for which KubeRay is behind decides.
            logger.warning("%s", error)
            return False

    async def _confirm_absence(self, names: Iterable[str]) -> None:
        """Raise IncompleteListError if one of `names` exists, or if the CRD is being deleted."""
        wanted = sorted(names)
        if wanted and await self._client.is_crd_terminating():
            raise IncompleteListError("the kind ModelEndpoint is being removed, and its objects with it")
        there = await gather_limited(self._client.has_endpoint, wanted, CONCURRENCY)
        forgotten = [name for name, found in zip(wanted, there, strict=True) if found]
        if forgotten:
            self._metrics.incomplete_lists.inc()
            raise IncompleteListError(
                f"the list of ModelEndpoints lacks {len(forgotten)} that exist, {forgotten[0]!r} among them"
            )

    async def _write_document(self, service: RayService, decision: Decision) -> None:
        document = decision.document
        assert document is not None
        self._metrics.serve_config_bytes.set(len(document))
        if document == service.document:
            self._right_document = document
            return
        drifted = document == self._right_document
        forced = document.rstrip("\n") == service.document.rstrip("\n")
        written = await self._client.apply_serve_config(service.uid, service.resource_version, document)
        self._service = parse_ray_service(written)
        self._right_document = document
        self._metrics.writes.inc()
        logger.info("Wrote the Serve config: %d bytes.", len(document))
        if forced:
            self._metrics.forced_pushes.inc()
            logger.warning(
                "Ray lacks applications that it was given; KubeRay is made to hand them over again."
            )
        elif drifted:
            self._metrics.drifts.inc()
            await self._events.record([drift_event(service, self._settings.ray_service)])
        if len(document) > self._settings.serve_config_alarm_bytes:
            logger.warning(
                "The Serve config has %d bytes; above %d, newcomers are left out.",
                len(document),
                self._settings.serve_config_limit_bytes,
            )

    def _changed_statuses(self, decision: Decision) -> list[ObservedEndpoint]:
        return [
            endpoint
            for endpoint in self._endpoints.values()
            if endpoint.name in decision.statuses and decision.statuses[endpoint.name] != endpoint.status
        ]

    async def _write_statuses(self, endpoints: Sequence[ObservedEndpoint], decision: Decision) -> None:
        """Write the statuses; an object that has changed meanwhile is left for the next reconciliation."""

        async def write(endpoint: ObservedEndpoint) -> None:
            try:
                await self._write_status(endpoint, decision)
            except (NotFoundError, ConflictError, InvalidError) as error:
                self._list_is_due = True
                logger.info("%s", error)

        await gather_limited(write, endpoints, CONCURRENCY)

    async def _store_verdicts(self, decision: Decision) -> None:
        """Write the statuses that must be stored before the Serve config may be written."""

        async def store(endpoint: ObservedEndpoint) -> None:
            try:
                await self._write_status(endpoint, decision)
            except InvalidError as error:
                # The API server would reject it each time, and all other endpoints would wait for it.
                logger.error("A restart will try the failed version again: %s", error)

        judged = [self._endpoints[name] for name in sorted(decision.verdicts)]
        await gather_limited(store, judged, CONCURRENCY)

    async def _write_status(self, endpoint: ObservedEndpoint, decision: Decision) -> None:
        status = decision.statuses[endpoint.name]
        content = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        written = await self._client.apply_status(
            endpoint.name, endpoint.uid, endpoint.resource_version, content
        )
        self._endpoints[endpoint.name] = parse_observed(written)
        self._metrics.status_writes.inc()
        if status.refused is not None and status.refused != endpoint.status.refused:
            self._metrics.rollbacks.inc()
            logger.warning("Took %s back: %s", endpoint.name, status.refused.message)
        await self._events.record(status_events(endpoint, status))

    def _requeue_after(self, decision: Decision) -> float:
        due = [max(0.0, self._relist_at - asyncio.get_running_loop().time())]
        if decision.requeue_after is not None:
            due.append(decision.requeue_after)
        if self._service is not None and self._service.is_behind:
            due.append(max(self._settings.settle_seconds, FIRST_PAUSE_SECONDS))
        if self._list_is_due:
            due.append(FIRST_PAUSE_SECONDS)
        if decision.reasons and (seconds := self._dashboard.requeue_after) is not None:
            due.append(seconds)
        return min(due)


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
