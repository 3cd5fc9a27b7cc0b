"""While KubeRay prepares a second Ray cluster: which endpoints hold the upgrade, and which must not; pure.

KubeRay gives Serve configs to the pending cluster only, and promotes it once every application in the Serve
config runs there (rayservice_controller.go). Until then the active cluster answers with what it has. So an
entry that stays in the Serve config holds the upgrade until it runs, and one that is taken out holds nothing.
"""

from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.status import Reason
from endpoint_operator.controller.decide.rollout import Clock
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.messages import failure_cause, unschedulable_message
from endpoint_operator.controller.observed.ray_view import RayView, answers, is_deployed
from endpoint_operator.controller.observed.rayservice import ApplicationReport
from serve_app.contract import GATEWAY_APPLICATION

# Stored reasons of endpoints that did not answer when the upgrade began. During an upgrade, the reason of an
# endpoint that answers stays `Serving`.
_NOT_SERVING: Final = frozenset(
    {
        Reason.DEPLOYING,
        Reason.UNSCHEDULABLE,
        Reason.DEPLOY_FAILED,
        Reason.UNHEALTHY,
        Reason.NO_READY_REPLICA,
        Reason.APPLICATION_MISSING,
        Reason.RAY_SERVICE_UPGRADING,
        Reason.RAY_SERVICE_NOT_READY,
        Reason.WAITING_FOR_GATEWAY,
    }
)

FAILURES: Final = {"DEPLOY_FAILED": Reason.DEPLOY_FAILED, "UNHEALTHY": Reason.UNHEALTHY}
"""Reasons of the application states that are failures; every other state leads to RUNNING."""


@dataclass(frozen=True)
class Blocked:
    """Why the pending cluster does not run a version that the active one serves."""

    reason: Reason
    message: str


def serves_on_active(endpoint: ObservedEndpoint, entry: str, view: RayView) -> bool:
    """Whether an upgrade is in progress and the active cluster answers with `entry` meanwhile."""
    if not view.is_upgrading:
        return False
    if view.active is not None:
        report = view.active.get(endpoint.name)
        if report is None or not is_deployed(report, entry):
            return False
        return answers(report, entry, has_run=entry == endpoint.last_good_entry)
    return entry == endpoint.last_good_entry and endpoint.stored_reason not in _NOT_SERVING


def upgrade_block(endpoint: ObservedEndpoint, entry: str, view: RayView, clock: Clock) -> Blocked | None:
    """Return why `entry`, which the active cluster serves, holds the upgrade; None if it does not."""
    service = view.service
    if service is None or service.pending is None or not serves_on_active(endpoint, entry, view):
        return None
    cluster, reports = service.pending.cluster, service.pending.applications
    found = _problem(endpoint.name, reports.get(endpoint.name), cluster, clock)
    if found is None:
        found = _problem(GATEWAY_APPLICATION, reports.get(GATEWAY_APPLICATION), cluster, clock)
    if found is None:
        return None
    reason, cause = found
    # The ways out come first, because the cause may be long and messages are cut.
    return Blocked(
        reason,
        "The upgrade is held, and the active Ray cluster goes on answering. Roll the upgrade back, mend the "
        "cause and begin the upgrade anew, or suspend the endpoint. On the pending Ray cluster "
        f"{cluster}, {cause}",
    )


def _problem(
    name: str, report: ApplicationReport | None, cluster: str, clock: Clock
) -> tuple[Reason, str] | None:
    """Return why an application does not run on the pending cluster, once that is more than its start."""
    if report is not None and report.status == "RUNNING":
        return None
    if report is not None and report.status in FAILURES:
        return FAILURES[report.status], f"{name} is {report.status}: {failure_cause(report)}"
    if report is not None and (waits := unschedulable_message(report)):
        return Reason.UNSCHEDULABLE, f"{name} waits: {waits}"
    seconds = clock.deadlines.unschedulable_seconds
    if not clock.watch.held(("pending", cluster, name), seconds):
        return None
    if report is None:
        return (
            Reason.APPLICATION_MISSING,
            f"nothing is known of {name} after {seconds:.0f} s: look at its pods.",
        )
    return Reason.DEPLOYING, f"{name} is {report.status} for more than {seconds:.0f} s: look at its pods."
