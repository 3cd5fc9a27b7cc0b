"""The level-based loop: wait for a trigger, observe the cluster, decide, and apply the decision.

An event says only that something has changed. The state is read from the API server each time. kopf's index
would not do: it keeps objects that were deleted while its watch was disconnected.
"""

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from endpoint_operator.api.status import REASONS
from endpoint_operator.controller.apply import Applier
from endpoint_operator.controller.debounce import Debouncer
from endpoint_operator.controller.decide.desired import DesiredState, Observation, Policy, desired_state
from endpoint_operator.controller.decide.rollout import Clock
from endpoint_operator.controller.decide.stopwatch import Stopwatch
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.observe import IncompleteListError, Observer
from endpoint_operator.controller.probes import Heartbeat
from endpoint_operator.controller.profiles_file import ProfilesFile
from endpoint_operator.controller.ray.dashboard import DashboardClient
from endpoint_operator.controller.ray.usage import UsageClient
from endpoint_operator.controller.settings import Settings
from endpoint_operator.kube.client import KubeClient
from endpoint_operator.kube.errors import ConflictError, KubeError

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0


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
        usage: UsageClient,
        metrics: Metrics,
        heartbeat: Heartbeat,
    ) -> None:
        self._settings = settings
        self._dashboard = dashboard
        self._usage = usage
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._observer = Observer(settings, client, profiles, dashboard, usage, metrics)
        self._applier = Applier(settings, client, self._observer, metrics)
        self._debouncer = Debouncer(settings.debounce_seconds, settings.debounce_limit_seconds)
        self._policy = Policy(settings.serve_config_limit_bytes, _base_url(settings))
        self._watch = Stopwatch()
        # Endpoints whose errors of the operator's own are in the log.
        self._logged: frozenset[str] = frozenset()

    def endpoint_changed(self, name: str, resource_version: str) -> None:
        """Handle the event of a ModelEndpoint; an event of our own write changes nothing."""
        if not self._observer.is_known_endpoint(name, resource_version):
            self.endpoint_deleted()

    def endpoint_deleted(self) -> None:
        """Handle the event that a ModelEndpoint was deleted."""
        self._observer.list_soon()
        self._debouncer.trigger()

    def service_changed(self, name: str, resource_version: str) -> None:
        """Handle the event of a RayService; only the configured one matters, and not our own writes."""
        if name == self._settings.ray_service and not self._observer.is_known_service(resource_version):
            self._debouncer.trigger()

    async def run(self) -> None:
        """Reconcile until cancelled; an error is logged, and the next attempt follows after a pause."""
        asking = [
            asyncio.create_task(client.run(self._debouncer.trigger))
            for client in (self._dashboard, self._usage)
        ]
        try:
            await self._run()
        finally:
            for task in asking:
                task.cancel()

    async def _run(self) -> None:
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
        self._observer.list_soon()
        self._metrics.errors.inc()
        if isinstance(error, ConflictError):
            logger.info("Somebody else was faster; looking again: %s", error)
        elif isinstance(error, KubeError | IncompleteListError):
            logger.warning("Not everything could be written: %s", error)
        else:
            logger.exception("Nothing was changed because of an error in the operator")

    async def reconcile(self) -> Result:
        """Observe, decide and apply once."""
        listed = self._observer.list_is_due or not self._observer.seconds_to_relist
        observed = await self._observer.observe()
        desired = self._decide(observed)
        if desired.absent and not listed:
            self._observer.list_soon()
            return Result(requeue=True)
        await self._observer.confirm_absence(desired.absent)
        self._show(desired)
        if await self._applier.apply(observed, desired):
            return Result(requeue=True)
        return Result(requeue_after=self._requeue_after(desired))

    def _decide(self, observed: Observation) -> DesiredState:
        self._watch.begin(asyncio.get_running_loop().time())
        desired = desired_state(observed, self._policy, Clock(datetime.now(UTC), self._settings, self._watch))
        for name in desired.errors.keys() - self._logged:
            logger.error(
                "Nothing could be decided about %s; its entry stays:\n%s", name, desired.errors[name]
            )
        self._logged = frozenset(desired.errors)
        return desired

    def _show(self, desired: DesiredState) -> None:
        self._metrics.renders.inc()
        self._metrics.show_endpoints(self._settings.namespace, desired.reasons)
        self._metrics.show_usages(self._settings.namespace, desired.statuses)
        self._metrics.upgrade_blocking_endpoints.set(len(desired.blocking))
        self._dashboard.hurry(any(REASONS[reason].reconciling for reason in desired.reasons.values()))

    def _requeue_after(self, desired: DesiredState) -> float:
        due = [self._observer.seconds_to_relist]
        if desired.requeue_after is not None:
            due.append(desired.requeue_after)
        if self._observer.service is not None and self._observer.service.is_behind:
            due.append(max(self._settings.settle_seconds, FIRST_PAUSE_SECONDS))
        if self._observer.list_is_due:
            due.append(FIRST_PAUSE_SECONDS)
        return min(due)


def _base_url(settings: Settings) -> str:
    host = f"{settings.ray_service}-serve-svc.{settings.namespace}.svc"
    return settings.external_url.rstrip("/") or f"http://{host}:{settings.service_port}"
