"""The level-based loop: something changed -> wait for quiet -> look at everything -> decide -> write.

Events say only that something changed; what is true is read from the API server each time. kopf's index
would not do: it keeps objects that were deleted while its watch was down.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from endpoint_operator.controller.announcements import announce_changes, announce_drift
from endpoint_operator.controller.announcer import Announcer
from endpoint_operator.controller.concurrency import few_at_a_time
from endpoint_operator.controller.dashboard import ServeStatus
from endpoint_operator.controller.debounce import Doorbell
from endpoint_operator.controller.decide.decision import Decider, Decision, Snapshot
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint, parse_observed
from endpoint_operator.controller.observed.rayservice import RayService, parse_ray_service
from endpoint_operator.controller.probes import Pulse
from endpoint_operator.controller.profiles_file import CatalogueFile
from endpoint_operator.controller.settings import Settings
from endpoint_operator.kube.client import Cluster, ClusterError, ConflictError, InvalidError, NotFoundError

logger = logging.getLogger(__name__)

# Requests at a time, so that the API server has time for others.
CONCURRENCY: Final = 8
# Statuses written before the cluster is looked at again: a change must not wait for a thousand of them.
STATUSES_AT_ONCE: Final = 200

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0

# KubeRay's clock against ours, and the second to which it rounds.
CLOCK_TOLERANCE: Final = timedelta(seconds=1)


class DoubtfulListError(Exception):
    """A list lacked endpoints that exist, so nothing may be concluded from it."""


class Reconciler:
    """Keeps one RayService and the statuses of its endpoints as they should be."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        catalogue: CatalogueFile,
        serve_status: ServeStatus,
        metrics: Metrics,
        pulse: Pulse,
    ) -> None:
        base_url = f"http://{settings.ray_service}-serve-svc.{settings.namespace}.svc:8000"
        self._settings = settings
        self._cluster = cluster
        self._catalogue = catalogue
        self._serve_status = serve_status
        self._metrics = metrics
        self._pulse = pulse
        self._announcer = Announcer(cluster, metrics)
        self.doorbell = Doorbell(settings.debounce_seconds, settings.debounce_limit_seconds)
        self._decider = Decider(settings, settings.serve_config_limit_bytes, base_url)
        self._endpoints: dict[str, ObservedEndpoint] = {}
        self._service: RayService | None = None
        self._list_is_due = True
        # When everything is listed again although nothing was heard, for what a watch may have missed.
        self._relist_at = 0.0
        # The document that this process knows to be right, to tell an edit by hand from a change of ours.
        self._right_document = ""
        # The generation that KubeRay has not followed yet, and when it was first seen.
        self._unfollowed: tuple[int, datetime] = (0, datetime.now(UTC))

    def endpoint_changed(self, name: str, resource_version: str) -> None:
        """Take note of a ModelEndpoint's event; our own writes are known already."""
        known = self._endpoints.get(name)
        if known is None or known.resource_version != resource_version:
            self._list_is_due = True
            self.doorbell.ring()

    def endpoint_deleted(self) -> None:
        """Take note that a ModelEndpoint is gone."""
        self._list_is_due = True
        self.doorbell.ring()

    def service_changed(self, name: str, resource_version: str) -> None:
        """Take note of a RayService's event; only one of them is ours."""
        if name != self._settings.ray_service:
            return
        if self._service is None or self._service.resource_version != resource_version:
            self.doorbell.ring()

    async def run(self) -> None:
        """Look and write until cancelled; trouble is logged, and tried again after a pause."""
        failures = 0
        while True:
            try:
                with self._metrics.seconds.time():
                    again_in = await self.look()
            except Exception as error:
                failures += 1
                self._note_failure(error)
                pause = min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS)
                spared = error.retry_after if isinstance(error, ClusterError) else 0.0
                await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), spared))
                continue
            failures = 0
            self._pulse.beat()
            await self.doorbell.wait(again_in)

    def _note_failure(self, error: Exception) -> None:
        self._list_is_due = True
        self._metrics.errors.inc()
        if isinstance(error, ConflictError):
            self._metrics.conflicts.inc()
            logger.info("Somebody else was faster; looking again: %s", error)
        elif isinstance(error, ClusterError | DoubtfulListError):
            logger.warning("Nothing was changed: %s", error)
        else:
            logger.exception("Nothing was changed because of an error in the operator")

    async def look(self) -> float:
        """Read, decide and write once; return the seconds until the next look is due by itself."""
        self._catalogue.reread()
        self._metrics.profiles_file_invalid.set(self._catalogue.broken)
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
            return 0.0
        await self._confirm_absence(decision.absent)
        await self._store_verdicts(decision)
        if service is not None:
            await self._write_document(service, decision)
        self._metrics.show_endpoints(decision.reasons)
        changed = self._changed_statuses(decision)
        await self._write_statuses(changed[:STATUSES_AT_ONCE], decision)
        more = len(changed) > STATUSES_AT_ONCE
        return 0.0 if more else self._seconds_to_next(decision)

    async def _list_endpoints(self) -> None:
        self._list_is_due = False
        known = {endpoint.uid: endpoint for endpoint in self._endpoints.values()}
        found = {}
        for manifest in await self._cluster.list_endpoints():
            metadata = manifest["metadata"]
            old = known.get(metadata["uid"])
            unchanged = old is not None and old.resource_version == metadata["resourceVersion"]
            found[metadata["name"]] = old if old is not None and unchanged else parse_observed(manifest)
        self._endpoints = found

    async def _read_service(self) -> RayService | None:
        manifest = await self._cluster.get_ray_service()
        self._service = parse_ray_service(manifest) if manifest else None
        return self._service

    async def _snapshot(self, service: RayService | None) -> Snapshot:
        self._metrics.generation_lag.set(service.generation_lag if service else 0)
        return Snapshot(
            endpoints=tuple(self._endpoints.values()),
            service=service,
            catalogue=self._catalogue.catalogue,
            replicas=await self._serve_status.replicas(service.resource_version if service else ""),
            refused=service is not None and await self._was_refused(service),
            head_lost=self._serve_status.lost,
        )

    async def _was_refused(self, service: RayService) -> bool:
        if not service.is_behind:
            return False
        now = datetime.now(UTC)
        if service.generation != self._unfollowed[0]:
            self._unfollowed = (service.generation, now)
        since = self._unfollowed[1]
        if now < since + timedelta(seconds=self._settings.settle_seconds):
            return False
        try:
            return await self._cluster.was_refused(service, since + CLOCK_TOLERANCE)
        except ClusterError as error:
            # Without events, the time that KubeRay is behind decides alone.
            logger.warning("%s", error)
            return False

    async def _confirm_absence(self, names: Iterable[str]) -> None:
        """Raise DoubtfulListError if an endpoint exists that the list lacked, or its kind is removed."""
        wanted = sorted(names)
        if wanted and await self._cluster.is_kind_leaving():
            raise DoubtfulListError("the kind ModelEndpoint is being removed, and its objects with it")
        there = await few_at_a_time(self._cluster.has_endpoint, wanted, CONCURRENCY)
        forgotten = [name for name, found in zip(wanted, there, strict=True) if found]
        if forgotten:
            self._metrics.incomplete_lists.inc()
            raise DoubtfulListError(
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
        self._service = parse_ray_service(await self._cluster.apply_serve_config(service, document))
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
            await self._announcer.announce([announce_drift(service, self._settings.ray_service)])
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
        """Write the statuses; one of an object that has changed meanwhile is left for the next look."""

        async def write(endpoint: ObservedEndpoint) -> None:
            try:
                await self._write_status(endpoint, decision)
            except (NotFoundError, ConflictError, InvalidError) as error:
                self._list_is_due = True
                logger.info("%s", error)

        await few_at_a_time(write, endpoints, CONCURRENCY)

    async def _store_verdicts(self, decision: Decision) -> None:
        """Write the statuses without which the document must not be written."""

        async def store(endpoint: ObservedEndpoint) -> None:
            try:
                await self._write_status(endpoint, decision)
            except InvalidError as error:
                # It would never be taken; all the others must not wait for it.
                logger.error("A restart will try the failed version again: %s", error)

        judged = [self._endpoints[name] for name in sorted(decision.verdicts)]
        await few_at_a_time(store, judged, CONCURRENCY)

    async def _write_status(self, endpoint: ObservedEndpoint, decision: Decision) -> None:
        status = decision.statuses[endpoint.name]
        content = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        written = await self._cluster.apply_status(
            endpoint.name, endpoint.uid, endpoint.resource_version, content
        )
        self._endpoints[endpoint.name] = parse_observed(written)
        self._metrics.status_writes.inc()
        if status.refused is not None and status.refused != endpoint.status.refused:
            self._metrics.rollbacks.inc()
            logger.warning("Took %s back: %s", endpoint.name, status.refused.message)
        await self._announcer.announce(announce_changes(endpoint, status))

    def _seconds_to_next(self, decision: Decision) -> float:
        due = [max(0.0, self._relist_at - asyncio.get_running_loop().time())]
        if decision.again_in is not None:
            due.append(decision.again_in)
        if self._service is not None and self._service.is_behind:
            due.append(max(self._settings.settle_seconds, FIRST_PAUSE_SECONDS))
        if self._list_is_due:
            due.append(FIRST_PAUSE_SECONDS)
        if decision.reasons and (seconds := self._serve_status.seconds_to_next) is not None:
            due.append(seconds)
        return min(due)


def _timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
