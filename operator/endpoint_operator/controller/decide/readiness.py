"""Evaluate in what state an endpoint is: the first reason that applies, and its message; pure."""

from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.status import Reason
from endpoint_operator.controller.decide.selection import SelectedVersion
from endpoint_operator.controller.decide.upgrade import FAILURES
from endpoint_operator.controller.observed.messages import failure_cause, unschedulable_message
from endpoint_operator.controller.observed.ray_view import RayView, answers
from endpoint_operator.controller.observed.rayservice import ApplicationReport, RayService
from serve_app.contract import GATEWAY_APPLICATION

# Reasons that keep an entry out although nothing is wrong with the endpoint.
_PASSING: Final = (
    Reason.WAITING_FOR_GATEWAY,
    Reason.QUARANTINED,
    Reason.RAY_SERVICE_UPGRADING,
    Reason.RAY_SERVICE_NOT_READY,
)

# KubeRay gives Serve configs to the pending cluster only, and attempts would hold it up.
_UNTIL_THEN: Final = (
    "A new Ray cluster is being prepared: until it takes over, the present one goes on with what it has, and "
    "nothing is tried again."
)


@dataclass(frozen=True)
class Input:
    """Everything that the state of an endpoint depends on."""

    selected: SelectedVersion
    view: RayView
    # What is reported of the entry that was selected; None if that is not known yet.
    report: ApplicationReport | None = None
    # No report of Ray is new enough.
    stale: bool = False
    # KubeRay has not observed the last change of the RayService within the deadline.
    behind: bool = False
    # Ray has the entry that was selected, or has had it.
    deployed: bool = False
    was_deployed: bool = False
    # It has run since Ray has had it.
    has_run: bool = False
    # It answered when another process looked, and this one has not heard Ray itself yet.
    answered: bool = False
    # An upgrade is in progress, and the active cluster answers with this entry meanwhile.
    serves_on_active: bool = False
    # A replica has been unschedulable for longer than an autoscaler takes to add a node.
    out_of_patience: bool = False

    @property
    def answers(self) -> bool:
        """Whether the entry that was selected answers requests."""
        entry, report = self.selected.entry, self.report
        if not self.deployed or entry is None:
            return False
        if self.answered and _is_of_a_head_that_starts(report):
            return self.has_run
        return report is not None and answers(report, entry, has_run=self.has_run)


@dataclass(frozen=True)
class State:
    """A reason, from which the conditions follow, and its message."""

    reason: Reason
    message: str = ""
    last_error: str = ""


def evaluate(given: Input) -> State:
    """Return the first state that applies, of the endpoint, the RayService and the application in turn."""
    selected = given.selected
    if selected.reason not in (None, *_PASSING):
        return _own_problem(given)
    if problem := _ray_service_problem(given):
        return problem
    if selected.reason is Reason.WAITING_FOR_GATEWAY:
        cause = _gateway_problem(given.view)
        return State(selected.reason, f"{selected.message} {cause}".rstrip(), cause)
    if given.serves_on_active and selected.reason is None:
        assert given.view.service is not None
        return _behind_its_service(given.view.service, " A new Ray cluster is being prepared.")
    return _handover_state(given) or _application_state(given)


def _handover_state(given: Input) -> State | None:
    """Return the state of a version that Ray does not have yet."""
    selected = given.selected
    if given.behind and (selected.reason is Reason.QUARANTINED or not given.deployed):
        return State(Reason.RAY_SERVICE_STATUS_STALE, "KubeRay has not handed the last change to Ray yet.")
    if selected.reason is not None:
        return State(selected.reason, selected.message)
    if given.deployed:
        return None
    if given.view.is_fresh and given.was_deployed and given.report is None:
        return State(Reason.APPLICATION_MISSING, "Ray does not have the application any more.")
    return State(Reason.DEPLOYING, "Handed to Ray; its answer is not there yet.")


def _own_problem(given: Input) -> State:
    selected = given.selected
    assert selected.reason is not None
    upgrading = f" {_UNTIL_THEN}" if given.view.is_upgrading else ""
    if selected.reason is Reason.SUSPENDED:
        return State(Reason.SUSPENDED, f"{selected.message}{upgrading}")
    kept = f" {_kept_version(given)}" if selected.entry is not None else ""
    return State(selected.reason, f"{selected.message}{kept}{upgrading}", selected.message)


def _kept_version(given: Input) -> str:
    """Say what has become of the version that is kept instead of the one that the spec describes."""
    report = given.report
    if given.stale:
        return "An earlier version is in the Serve config; what it does now is not known."
    if given.serves_on_active or given.answers:
        return "The last good version answers meanwhile."
    if given.deployed and report is not None and report.status in FAILURES:
        return f"The last good version does not answer either: {failure_cause(report)}"
    return "The last good version is being deployed meanwhile."


def _ray_service_problem(given: Input) -> State | None:
    service = given.view.service
    if service is None:
        return State(Reason.RAY_SERVICE_NOT_FOUND, "The RayService does not exist.")
    if service.suspended:
        return State(Reason.RAY_SERVICE_SUSPENDED, "The RayService is suspended.")
    if given.stale:
        return State(
            Reason.RAY_SERVICE_STATUS_STALE,
            "KubeRay has stopped updating the RayService's status; it may have ended, or Ray's head is away.",
        )
    return None


def _gateway_problem(view: RayView) -> str:
    report = view.applications.get(GATEWAY_APPLICATION)
    if report is None or report.status == "RUNNING":
        return ""
    cause = failure_cause(report)
    return f"The gateway is {report.status}: {cause}" if cause else ""


def _application_state(given: Input) -> State:
    service, report = given.view.service, given.report
    assert service is not None
    status = report.status if report else ""
    if service.is_upgrading and status not in FAILURES:
        return State(
            Reason.RAY_SERVICE_UPGRADING,
            "A new Ray cluster is being prepared. This version is deployed there only, and answers once that "
            "cluster takes over.",
        )
    if given.answers:
        return _behind_its_service(service)
    if report is None:
        return State(Reason.APPLICATION_MISSING, "Ray does not report the application.")
    return _not_answering(given, report)


def _is_of_a_head_that_starts(report: ApplicationReport | None) -> bool:
    """Whether KubeRay says what it says of each application while Ray's head starts: nothing, then DEPLOYING.

    The replicas go on meanwhile, and the head asks each of them before it says RUNNING.
    """
    return report is None or (report.replicas is None and report.status == "DEPLOYING")


def _behind_its_service(service: RayService, more: str = "") -> State:
    if service.ready is not True:
        return State(
            Reason.RAY_SERVICE_NOT_READY, "The model runs, but the RayService's Service has no endpoints."
        )
    return State(Reason.SERVING, f"The model answers.{more}")


def _not_answering(given: Input, report: ApplicationReport) -> State:
    cause = failure_cause(report)
    if report.status in FAILURES:
        return State(FAILURES[report.status], cause, cause)
    if unschedulable_message(report) and given.out_of_patience:
        return State(Reason.UNSCHEDULABLE, cause, cause)
    if report.status == "RUNNING":
        return State(
            Reason.NO_READY_REPLICA, cause or "Ray runs the application without a ready replica.", cause
        )
    return State(Reason.DEPLOYING, cause or "Ray builds and loads the model.", cause)
