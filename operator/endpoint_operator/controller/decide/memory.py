"""Decide what an endpoint's status has to remember across restarts: what ran last, and what failed; pure."""

from dataclasses import dataclass, replace

from endpoint_operator.api.status import LastGood, Reason, Refused
from endpoint_operator.controller.decide.admission import Wanted
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.messages import trouble
from endpoint_operator.controller.observed.rayservice import ApplicationReport
from endpoint_operator.serveconfig.document import fingerprint

LONGEST_MESSAGE = 1024


@dataclass(frozen=True)
class Evidence:
    """What is known of the entry that the live document has for an endpoint."""

    entry: str | None
    # None until what KubeRay reports speaks of this entry.
    report: ApplicationReport | None = None
    # It has failed for longer than it may.
    failed_for_good: bool = False
    # Ray refuses every document that has it.
    convicted: bool = False


def remember(observed: ObservedEndpoint, wanted: Wanted, evidence: Evidence) -> ObservedEndpoint:
    """Return `observed` with what its status should remember from now on."""
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


def _is_outdated(refused: Refused | None, wanted: Wanted) -> bool:
    # The same version is tried again once the author has wanted another one in between.
    return (
        refused is not None and wanted.entry is not None and refused.fingerprint != fingerprint(wanted.entry)
    )


def _is_only_good(observed: ObservedEndpoint, wanted: Wanted, evidence: Evidence) -> bool:
    """Return whether the entry is there because it was the last good one, in place of what is wanted."""
    return evidence.entry == observed.good_entry and evidence.entry != wanted.entry


def _has_proven_itself(observed: ObservedEndpoint, wanted: Wanted, evidence: Evidence) -> bool:
    runs = evidence.report is not None and evidence.report.status == "RUNNING"
    return runs and evidence.entry == wanted.entry != observed.good_entry


def _refusal(observed: ObservedEndpoint, evidence: Evidence, reason: Reason) -> Refused:
    assert evidence.entry is not None
    cause = trouble(evidence.report) if evidence.report else ""
    if reason is Reason.REJECTED_BY_RAY:
        cause = "Ray does not take a configuration with this version."
    return Refused(
        generation=observed.generation,
        fingerprint=fingerprint(evidence.entry),
        reason=reason,
        message=cause[:LONGEST_MESSAGE],
    )
