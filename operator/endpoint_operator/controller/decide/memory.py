"""Decide what an endpoint's status records: its last good and its failed version; pure."""

from dataclasses import dataclass, replace

from endpoint_operator.api.status import LastGood, Reason, Refused
from endpoint_operator.controller.decide.admission import CompiledEndpoint
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.messages import failure_cause
from endpoint_operator.controller.observed.rayservice import ApplicationReport
from endpoint_operator.serveconfig.document import fingerprint

LONGEST_MESSAGE = 1024


@dataclass(frozen=True)
class Evidence:
    """What is known of an endpoint's entry in the live Serve config."""

    entry: str | None
    # None until KubeRay's report describes this entry.
    report: ApplicationReport | None = None
    # The report is of a Ray cluster that is prepared while another one answers.
    upgrading: bool = False
    # It has been DEPLOY_FAILED for longer than the deadline.
    failed_for_good: bool = False
    # Ray rejects every Serve config that contains it.
    convicted: bool = False


def remember(observed: ObservedEndpoint, wanted: CompiledEndpoint, evidence: Evidence) -> ObservedEndpoint:
    """Return `observed` with an updated record of its last good and its failed version."""
    status = observed.status
    last_good, refused = status.last_good, status.refused
    if observed.suspended or _is_outdated(refused, wanted):
        refused = None
    if evidence.convicted:
        refused = _refusal(observed, evidence, Reason.REJECTED_BY_RAY)
    elif evidence.failed_for_good and _is_only_good(observed, wanted, evidence):
        last_good = None
    elif evidence.failed_for_good:
        refused = _refusal(observed, evidence, Reason.DEPLOY_FAILED)
    elif _has_proven_itself(observed, wanted, evidence):
        assert evidence.entry is not None
        last_good = LastGood(generation=observed.generation, application=evidence.entry)
    return replace(observed, status=status.model_copy(update={"last_good": last_good, "refused": refused}))


def _is_outdated(refused: Refused | None, wanted: CompiledEndpoint) -> bool:
    # A failed version is tried again once the spec has described another one in between.
    return (
        refused is not None and wanted.entry is not None and refused.fingerprint != fingerprint(wanted.entry)
    )


def _is_only_good(observed: ObservedEndpoint, wanted: CompiledEndpoint, evidence: Evidence) -> bool:
    """Return whether the entry is the last good version, served instead of what the spec describes."""
    return evidence.entry == observed.last_good_entry and evidence.entry != wanted.entry


def _has_proven_itself(observed: ObservedEndpoint, wanted: CompiledEndpoint, evidence: Evidence) -> bool:
    runs = evidence.report is not None and evidence.report.status == "RUNNING"
    # What runs on a pending cluster has not answered anybody yet.
    return runs and not evidence.upgrading and evidence.entry == wanted.entry != observed.last_good_entry


def _refusal(observed: ObservedEndpoint, evidence: Evidence, reason: Reason) -> Refused:
    assert evidence.entry is not None
    cause = failure_cause(evidence.report) if evidence.report else ""
    if reason is Reason.REJECTED_BY_RAY:
        cause = "Ray does not take a configuration with this version."
    return Refused(
        generation=observed.generation,
        fingerprint=fingerprint(evidence.entry),
        reason=reason,
        message=cause[:LONGEST_MESSAGE],
    )
