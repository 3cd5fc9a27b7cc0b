"""While KubeRay prepares a second Ray cluster: which endpoints hold the upgrade, and which must not; pure.

KubeRay gives Serve configs to the pending cluster only, and promotes it once every application in the Serve
config runs there (rayservice_controller.go). Until then the active cluster answers with what it has. So an
entry that stays in the Serve config holds the upgrade until it runs, and one that is taken out holds nothing.
"""

from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.status import Reason
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.messages import failure_cause, unschedulable_message
from endpoint_operator.controller.observed.ray_view import RayView, answers, is_deployed
from endpoint_operator.controller.observed.rayservice import ApplicationReport

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
    if view.service is None or not view.service.is_upgrading:
        return False
    if view.active is not None:
        report = view.active.get(endpoint.name)
        if report is None or not is_deployed(report, entry):
            return False
        return answers(report, entry, has_run=entry == endpoint.last_good_entry)
    return entry == endpoint.last_good_entry and endpoint.stored_reason not in _NOT_SERVING


def upgrade_block(endpoint: ObservedEndpoint, entry: str, view: RayView) -> Blocked | None:
    """Return why `entry`, which the active cluster serves, holds the upgrade; None if it does not."""
    service = view.service
    if service is None or not serves_on_active(endpoint, entry, view):
        return None
    report = service.applications.get(endpoint.name)
    reason = _reason_not_to_run(report) if report else None
    if report is None or reason is None:
        return None
    assert service.pending is not None
    # The ways out come first, because the cause may be long and messages are cut.
    return Blocked(
        reason,
        "The upgrade is held, and the active Ray cluster goes on answering. Roll the upgrade back, mend the "
        "cause, or suspend the endpoint. This version does not run on the pending Ray cluster "
        f"{service.pending.cluster}: {failure_cause(report)}",
    )


def _reason_not_to_run(report: ApplicationReport) -> Reason | None:
    if report.status in FAILURES:
        return FAILURES[report.status]
    return Reason.UNSCHEDULABLE if unschedulable_message(report) else None
