"""What one round knows of the RayService as a whole, and what it sees of one version; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from endpoint_operator.api.status import Reason, RolloutPhase
from endpoint_operator.controller.decide.rollout import Clock, Sighting, Version, was_with_ray
from endpoint_operator.controller.decide.selection import fallbacks
from endpoint_operator.controller.decide.upgrade import serves_on_active
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.messages import unschedulable_message
from endpoint_operator.controller.observed.ray_view import RayView, is_deployed
from endpoint_operator.controller.observed.rayservice import RayService
from endpoint_operator.controller.observed.rejection import Rejection
from endpoint_operator.serveconfig.document import read_entries
from serve_app.contract import GATEWAY_APPLICATION


@dataclass(frozen=True)
class Situation:
    """The RayService, its live Serve config by application, and how its reports are to be taken."""

    view: RayView
    live: Mapping[str, str]
    clock: Clock
    # No Ray cluster serves, so only the gateway may be in the Serve config.
    awaiting_gateway: bool
    # KubeRay has not observed the last change of the RayService within the deadline.
    behind: bool
    # Ray has not accepted the live Serve config; `certain` if it has said that it is invalid.
    rejected: bool
    certain: bool

    @property
    def stale(self) -> bool:
        """Whether no report is new enough to say anything."""
        return self.view.is_silent or (self.behind and self.view.active is None)

    def sighting(self, endpoint: ObservedEndpoint, version: Version) -> Sighting:
        """Return what is seen of `version`, which the spec of `endpoint` describes."""
        service = self.view.service
        entry = version.entry
        live = self.live.get(endpoint.name) == entry
        upgrading = self.view.is_upgrading
        protected = upgrading and (
            entry == endpoint.last_good_entry or serves_on_active(endpoint, entry, self.view)
        )
        deployed = live and self.is_deployed(endpoint, entry)
        return Sighting(
            live=live,
            deployed=deployed,
            report=self.view.applications.get(endpoint.name) if deployed else None,
            proven=endpoint.has_run(entry),
            protected=protected,
            upgrading=upgrading,
            in_the_way=self._in_the_way(endpoint, entry) if deployed else None,
            stand_in_problem=self._stand_in_problem(endpoint, entry),
            service_up=service is not None and service.active is not None and service.ready is True,
        )

    def is_deployed(self, endpoint: ObservedEndpoint, entry: str) -> bool:
        """Return whether the report of the application speaks of `entry`, which is in the live Serve config.

        Ray's own answer says which configuration it has. KubeRay's copy does not: KubeRay reads the statuses
        before it sends Ray a Serve config, but then reports the new generation together with the old ones.
        """
        service = self.view.service
        if service is None:
            return False
        if self.view.is_fresh:
            return is_deployed(self.view.applications.get(endpoint.name), entry)
        fact = (service.uid, endpoint.uid, entry)
        watch, deadlines = self.clock.watch, self.clock.deadlines
        since = watch.noted(("handed over", *fact), service.generation)
        observed = service.observed_generation >= since or service.active is None
        held = observed and watch.held(("settled", *fact), deadlines.settle_seconds)
        # After a restart the timers start at zero, but the stored rollout knows.
        return held or was_with_ray(endpoint.status.rollout, entry)

    def has_waited_long_for_a_node(self, endpoint: ObservedEndpoint, entry: str) -> bool:
        """Return whether a replica has been unschedulable for longer than an autoscaler needs."""
        report = self.view.applications.get(endpoint.name)
        if report is None or not unschedulable_message(report):
            return False
        fact = ("no place", endpoint.uid, entry)
        held = self.clock.watch.held(fact, self.clock.deadlines.unschedulable_seconds)
        return held or endpoint.stored_reason == Reason.UNSCHEDULABLE

    def _in_the_way(self, endpoint: ObservedEndpoint, entry: str) -> Reason | None:
        """Return why others wait for `entry`, once it has not run for too long."""
        service = self.view.service
        report = self.view.applications.get(endpoint.name)
        if service is None or report is None or report.status == "RUNNING":
            return None
        if report.replicas is not None and report.replicas.ready:
            return None
        if service.is_upgrading and service.pending is not None:
            if serves_on_active(endpoint, entry, self.view):
                return None
            reason, cluster = Reason.RAY_SERVICE_UPGRADING, service.pending.cluster
        elif service.ready is not True:
            # KubeRay creates and moves the Services only once all applications run.
            reason, cluster = Reason.RAY_SERVICE_NOT_READY, ""
        else:
            return None
        fact = ("in the way", reason, cluster, endpoint.uid, entry)
        return reason if self.clock.watch.held(fact, self.clock.deadlines.failed_seconds) else None

    def _stand_in_problem(self, endpoint: ObservedEndpoint, wanted: str) -> Reason | None:
        """Return why the good version that is live instead of `wanted` has to go; None if it need not."""
        rollout, entry = endpoint.status.rollout, self.live.get(endpoint.name)
        if entry is None or entry == wanted or not endpoint.has_run(entry):
            return None
        # Of two good versions, one that has gone may still be in the Serve config.
        candidates = fallbacks(endpoint, wanted)[rollout.failed_fallbacks if rollout else 0 :]
        if rollout and rollout.phase is RolloutPhase.BACKING_OFF and entry not in candidates[:1]:
            return None
        if not self.is_deployed(endpoint, entry):
            return None
        if reason := self._in_the_way(endpoint, entry):
            return reason
        service, report = self.view.service, self.view.applications.get(endpoint.name)
        if service is None or service.is_upgrading or report is None or report.status != "DEPLOY_FAILED":
            return None
        fact = ("stand-in failed", endpoint.uid, entry)
        failed = self.clock.watch.held(fact, self.clock.deadlines.failed_seconds)
        return Reason.DEPLOY_FAILED if failed else None


def situation_of(view: RayView, rejection: Rejection, clock: Clock) -> Situation:
    """Return the situation of a round."""
    service = view.service
    live = read_entries(service.document) if service else {}
    is_behind = service is not None and service.is_behind
    fact = ("behind", service.observed_generation if service else 0)
    behind = is_behind and clock.watch.held(fact, clock.deadlines.behind_seconds)
    return Situation(
        view=view,
        live=live,
        clock=clock,
        awaiting_gateway=service is not None and _awaits_gateway(service, live, clock),
        behind=behind,
        # While the dashboard does not answer, KubeRay cannot hand anything over either.
        rejected=is_behind and (rejection is not Rejection.NONE or (behind and not view.is_silent)),
        certain=rejection is Rejection.INVALID,
    )


def _awaits_gateway(service: RayService, live: Mapping[str, str], clock: Clock) -> bool:
    if service.has_run:
        return False
    # What is in the Serve config is taken out only for a loss that lasts.
    is_empty = not live.keys() - {GATEWAY_APPLICATION}
    return is_empty or clock.watch.held(("lost", service.uid), clock.deadlines.settle_seconds)
