"""Compute an endpoint's status from what was selected for it and from what KubeRay reports; pure."""

from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.status import (
    REASONS,
    REFUSALS,
    Condition,
    ConditionStatus,
    ConditionType,
    ModelEndpointStatus,
    Reason,
)
from endpoint_operator.controller.decide.admission import Admission
from endpoint_operator.controller.decide.upgrade import FAILURES, Blocked
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.messages import failure_cause, unschedulable_message
from endpoint_operator.controller.observed.rayservice import ApplicationReport, RayService
from serve_app.contract import route_prefix

LONGEST_ERROR: Final = 1024

# Reasons that keep an entry out although nothing is wrong with the endpoint.
_PASSING: Final = (Reason.WAITING_FOR_GATEWAY, Reason.QUARANTINED, Reason.RAY_SERVICE_UPGRADING)


@dataclass(frozen=True)
class Replicas:
    """How many replicas an application has, and how many of them are ready."""

    total: int
    ready: int


@dataclass(frozen=True)
class Case:
    """Everything that an endpoint's conditions depend on."""

    admission: Admission
    service: RayService | None
    report: ApplicationReport | None = None
    # KubeRay has not observed the last change within the deadline, or the dashboard does not answer any more.
    stale: bool = False
    # The report describes the entry that is in the Serve config, not the one before.
    settled: bool = False
    # An upgrade is in progress, and the active cluster answers with this entry meanwhile.
    serves_on_active: bool = False
    # The pending cluster of the upgrade does not run this entry.
    blocked: Blocked | None = None
    # A replica has been unschedulable for longer than an autoscaler takes to add a node.
    out_of_patience: bool = False


@dataclass(frozen=True)
class Verdict:
    """A reason, from which Ready, Reconciling and Stalled follow, and its message."""

    reason: Reason
    message: str = ""
    last_error: str = ""


def judge(case: Case) -> Verdict:
    """Return the first reason that applies, of the endpoint, the RayService and the application in turn."""
    admission = case.admission
    if admission.reason not in (None, *_PASSING):
        return _own_problem(admission)
    if problem := _ray_service_problem(case.service, case.stale):
        return problem
    if admission.reason is not None:
        return Verdict(admission.reason, admission.message)
    if not case.settled:
        return Verdict(Reason.DEPLOYING, "Handed to Ray; its answer is not there yet.")
    return _application_verdict(case)


def _own_problem(admission: Admission) -> Verdict:
    assert admission.reason is not None
    if admission.reason is Reason.SUSPENDED:
        return Verdict(Reason.SUSPENDED, admission.message)
    message = admission.message
    if admission.entry is not None:
        message += " The last good version goes on."
    return Verdict(admission.reason, message, admission.message)


def _ray_service_problem(service: RayService | None, stale: bool) -> Verdict | None:
    if service is None:
        return Verdict(Reason.RAY_SERVICE_NOT_FOUND, "The RayService does not exist.")
    if service.suspended:
        return Verdict(Reason.RAY_SERVICE_SUSPENDED, "The RayService is suspended.")
    if stale:
        return Verdict(
            Reason.RAY_SERVICE_STATUS_STALE,
            "KubeRay has stopped updating the RayService's status; it may have ended, or Ray's head is away.",
        )
    return None


def _application_verdict(case: Case) -> Verdict:
    service, report = case.service, case.report
    assert service is not None
    if case.serves_on_active:
        return Verdict(Reason.SERVING, "The model answers. A new Ray cluster is being prepared.")
    status = report.status if report else ""
    if service.is_upgrading and status not in FAILURES:
        return Verdict(
            Reason.RAY_SERVICE_UPGRADING,
            "A new Ray cluster is being prepared. This version is deployed there only, and answers once that "
            "cluster takes over.",
        )
    if report is None:
        return Verdict(Reason.APPLICATION_MISSING, "Ray does not report the application.")
    if status == "RUNNING" and service.ready is not True:
        return Verdict(
            Reason.RAY_SERVICE_NOT_READY, "The model runs, but the RayService's Service has no endpoints."
        )
    if status == "RUNNING":
        return Verdict(Reason.SERVING, "The model answers.")
    cause = failure_cause(report)
    if status in FAILURES:
        return Verdict(FAILURES[status], cause, cause)
    waits = unschedulable_message(report)
    reason = Reason.UNSCHEDULABLE if waits and case.out_of_patience else Reason.DEPLOYING
    return Verdict(reason, cause or "Ray builds and loads the model.", cause)


def to_status(
    observed: ObservedEndpoint,
    verdict: Verdict,
    admission: Admission,
    *,
    base_url: str,
    replicas: Replicas | None,
    blocked: Blocked | None,
    time: str,
) -> ModelEndpointStatus:
    """Return the status of `observed`; a condition whose status stays the same keeps its transition time."""
    served = admission.entry is not None
    profile = observed.endpoint.spec.resources.profile if observed.endpoint else observed.status.profile
    return ModelEndpointStatus(
        observed_generation=observed.generation,
        conditions=_conditions(observed, verdict, blocked, time),
        url=f"{base_url}{route_prefix(observed.name)}" if served else "",
        replicas=replicas.total if served and replicas else None,
        ready_replicas=replicas.ready if served and replicas else None,
        profile=profile,
        application=observed.name if served else "",
        last_error=_cut(verdict.last_error),
        last_good=observed.status.last_good,
        refused=observed.status.refused,
    )


def _conditions(
    observed: ObservedEndpoint, verdict: Verdict, blocked: Blocked | None, time: str
) -> list[Condition]:
    meaning = REASONS[verdict.reason]
    refused = verdict.reason in REFUSALS
    accepted = (verdict.reason, verdict.message) if refused else (Reason.ACCEPTED, "The spec is valid.")
    rows: list[tuple[ConditionType, ConditionStatus, Reason, str]] = [
        (ConditionType.READY, meaning.ready, verdict.reason, verdict.message),
        (ConditionType.RECONCILING, _truth(meaning.reconciling), verdict.reason, verdict.message),
        (ConditionType.STALLED, _truth(meaning.stalled), verdict.reason, verdict.message),
        (ConditionType.ACCEPTED, _truth(not refused), *accepted),
    ]
    if blocked is not None:
        rows.append((ConditionType.UPGRADE_BLOCKED, "True", blocked.reason, blocked.message))
    before = {condition.type: condition for condition in observed.status.conditions}
    return [
        Condition(
            type=kind,
            status=status,
            reason=reason,
            message=_cut(message),
            observed_generation=observed.generation,
            last_transition_time=before[kind].last_transition_time
            if kind in before and before[kind].status == status
            else time,
        )
        for kind, status, reason, message in rows
    ]


def _truth(value: bool) -> ConditionStatus:
    return "True" if value else "False"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"
