"""Read the cluster once: the endpoints, the RayService, the profiles, and Ray's own view."""

import logging
import random
import re
from asyncio import get_running_loop
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from endpoint_operator.api.profiles import ClusterProfiles, Profiles
from endpoint_operator.api.rules import NAME_PATTERN
from endpoint_operator.api.runtime import belongs
from endpoint_operator.api.status import ModelEndpointStatus, Reason
from endpoint_operator.controller.concurrency import gather_limited
from endpoint_operator.controller.decide.desired import Observation
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.observed.endpoint import (
    CompiledEndpoint,
    ObservedEndpoint,
    compile_endpoint,
    internal_error,
    parse_observed,
)
from endpoint_operator.controller.observed.ray_view import RayView
from endpoint_operator.controller.observed.rayservice import RayService, parse_ray_service
from endpoint_operator.controller.observed.rejection import Rejection, rejection_in
from endpoint_operator.controller.observed.usage import UsageView
from endpoint_operator.controller.profiles_file import ProfilesFile
from endpoint_operator.controller.ray.dashboard import DashboardClient
from endpoint_operator.controller.ray.usage import UsageClient
from endpoint_operator.controller.settings import Settings
from endpoint_operator.kube.client import KubeClient
from endpoint_operator.kube.errors import KubeError
from endpoint_operator.serveconfig.compiler import gateway_application
from endpoint_operator.serveconfig.document import to_entry

logger = logging.getLogger(__name__)

# Concurrent requests, few enough that the API server can serve its other clients.
CONCURRENCY: Final = 8

# KubeRay's clock may differ from ours, and its events are rounded to a second.
CLOCK_TOLERANCE: Final = timedelta(seconds=1)


class IncompleteListError(Exception):
    """A list of ModelEndpoints lacked some that exist, so nothing may be removed because of it."""


@dataclass(frozen=True)
class _Compiled:
    """What the specs compile to with some profiles: by uid and generation."""

    profiles: ClusterProfiles
    gateway: str
    endpoints: dict[tuple[str, int], CompiledEndpoint]


class Observer:
    """Reads the cluster, and remembers what it has parsed, so that an unchanged object is parsed once."""

    def __init__(
        self,
        settings: Settings,
        client: KubeClient,
        profiles: ProfilesFile,
        dashboard: DashboardClient,
        usage: UsageClient,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._client = client
        self._profiles = profiles
        self._dashboard = dashboard
        self._usage = usage
        self._metrics = metrics
        self._endpoints: dict[str, ObservedEndpoint] = {}
        self._compiled: _Compiled | None = None
        self._service: RayService | None = None
        self._list_is_due = True
        # When to list again although no event came: a watch may have missed one.
        self._relist_at = 0.0
        # The generation that KubeRay has not observed yet, and when it was first seen.
        self._unobserved: tuple[int, datetime] = (0, datetime.now(UTC))

    def is_known_endpoint(self, name: str, resource_version: str) -> bool:
        """Return whether this version of a ModelEndpoint has been read, or was written by us."""
        known = self._endpoints.get(name)
        return known is not None and known.resource_version == resource_version

    def is_known_service(self, resource_version: str) -> bool:
        """Return whether this version of the RayService has been read, or was written by us."""
        return self._service is not None and self._service.resource_version == resource_version

    def list_soon(self) -> None:
        """List all ModelEndpoints in the next observation."""
        self._list_is_due = True

    @property
    def list_is_due(self) -> bool:
        return self._list_is_due

    @property
    def seconds_to_relist(self) -> float:
        return max(0.0, self._relist_at - get_running_loop().time())

    @property
    def service(self) -> RayService | None:
        """The RayService as it was read or written last."""
        return self._service

    async def observe(self) -> Observation:
        """Read everything that has changed."""
        self._profiles.reread()
        self._metrics.profiles_file_invalid.set(self._profiles.invalid)
        if self._list_is_due or not self.seconds_to_relist:
            await self._list_endpoints()
            self._relist_at = get_running_loop().time() + self._settings.resync_seconds * random.uniform(
                0.8, 1
            )
        service = await self.read_service()
        self._metrics.generation_lag.set(service.generation_lag if service else 0)
        cluster = service.active.cluster if service and service.active else ""
        self._dashboard.ask(cluster)
        self._usage.wanted = bool(cluster)
        self._hand_on_sources()
        ours = [each for each in self._endpoints.values() if not each.deleting and self._serves(each)]
        compiled = self._compile(ours)
        return Observation(
            endpoints=ours,
            compiled={each.name: compiled.endpoints[each.uid, each.generation] for each in ours},
            gateway=compiled.gateway,
            view=self._view(service),
            listed=frozenset(name for name, each in self._endpoints.items() if not each.deleting),
            rejection=await self._rejection(service),
            usage=UsageView(report, compiled.profiles.by_name) if (report := self._usage.report) else None,
        )

    def _view(self, service: RayService | None) -> RayView:
        dashboard = self._dashboard
        return RayView(service, dashboard.report, dashboard.overdue, dashboard.awaited, dashboard.locked_out)

    async def read_service(self) -> RayService | None:
        """Read the RayService alone."""
        manifest = await self._client.get_ray_service()
        self._service = parse_ray_service(manifest) if manifest else None
        return self._service

    async def confirm_absence(self, names: Iterable[str]) -> None:
        """Raise IncompleteListError if one of `names` exists, or if the CRD is being deleted."""
        # An edited Serve config may have applications of other names, which no endpoint can have.
        wanted = sorted(name for name in names if re.fullmatch(NAME_PATTERN, name))
        if wanted and await self._client.is_crd_terminating():
            raise IncompleteListError("the kind ModelEndpoint is being removed, and its objects with it")
        there = await gather_limited(self._client.has_endpoint, wanted, CONCURRENCY)
        forgotten = [name for name, found in zip(wanted, there, strict=True) if found]
        if forgotten:
            self._metrics.incomplete_lists.inc()
            raise IncompleteListError(
                f"the list of ModelEndpoints lacks {len(forgotten)} that exist, {forgotten[0]!r} among them"
            )

    def endpoint_written(self, manifest: dict[str, Any], status: ModelEndpointStatus) -> None:
        """Take over an endpoint as our own write of `status` has left it.

        An older CRD may have dropped a part of it; to write that again would be no use.
        """
        endpoint = parse_observed(manifest)
        self._endpoints[endpoint.name] = replace(endpoint, status=status)

    def status_refused(self, endpoint: ObservedEndpoint, status: ModelEndpointStatus) -> None:
        """Go on as if `status` had been stored, until the endpoint changes."""
        self._endpoints[endpoint.name] = replace(endpoint, status=status)

    def service_written(self, manifest: dict[str, Any]) -> RayService:
        """Take over the RayService as our own write has left it."""
        self._service = parse_ray_service(manifest)
        return self._service

    def _serves(self, endpoint: ObservedEndpoint) -> bool:
        return belongs(
            endpoint.runtime, self._settings.ray_service, is_default=self._settings.default_runtime
        )

    async def _list_endpoints(self) -> None:
        self._list_is_due = False
        known = {endpoint.uid: endpoint for endpoint in self._endpoints.values()}
        found = {}
        for manifest in await self._client.list_endpoints():
            metadata = manifest["metadata"]
            old = known.get(metadata["uid"])
            unchanged = old is not None and old.resource_version == metadata["resourceVersion"]
            found[metadata["name"]] = old if old is not None and unchanged else _parse(manifest)
        self._endpoints = found

    def _hand_on_sources(self) -> None:
        """Let each endpoint know where models may come from; one that knows keeps what it has parsed."""
        sources = self._profiles.profiles.sources
        self._endpoints = {
            name: each if each.sources == sources else replace(each, sources=sources)
            for name, each in self._endpoints.items()
        }

    def _compile(self, endpoints: list[ObservedEndpoint]) -> _Compiled:
        profiles, before = self._profiles.profiles, self._compiled
        if before is None or before.profiles is not profiles:
            before = _Compiled(profiles, to_entry(gateway_application(profiles)), {})
        self._compiled = _Compiled(
            profiles,
            before.gateway,
            {
                key: before.endpoints[key] if key in before.endpoints else _compile(each, profiles)
                for each in endpoints
                for key in [(each.uid, each.generation)]
            },
        )
        return self._compiled

    async def _rejection(self, service: RayService | None) -> Rejection:
        if service is None or not service.is_behind:
            return Rejection.NONE
        now = datetime.now(UTC)
        if service.generation != self._unobserved[0]:
            self._unobserved = (service.generation, now)
        since = self._unobserved[1]
        if now < since + timedelta(seconds=self._settings.settle_seconds):
            return Rejection.NONE
        try:
            return rejection_in(await self._client.update_failures(service.uid, since + CLOCK_TOLERANCE))
        except KubeError as error:
            # Without events, only the time for which KubeRay is behind decides.
            logger.warning("%s", error)
            return Rejection.NONE


def _parse(manifest: dict[str, Any]) -> ObservedEndpoint:
    endpoint = parse_observed(manifest)
    if endpoint.error:
        logger.error("The spec of %s cannot be parsed:\n%s", endpoint.name, endpoint.error)
    return endpoint


def _compile(endpoint: ObservedEndpoint, profiles: Profiles) -> CompiledEndpoint:
    try:
        return compile_endpoint(endpoint, profiles)
    except Exception as error:
        # It concerns this endpoint alone.
        logger.exception("The spec of %s cannot be compiled", endpoint.name)
        return CompiledEndpoint(None, Reason.INTERNAL_ERROR, internal_error(error))
