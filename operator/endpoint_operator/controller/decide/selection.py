"""Select the version of each endpoint for the Serve config, and say why if it is not that of its spec; pure.

No selection depends on another endpoint.
"""

from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.status import Reason, Rollout, RolloutPhase
from endpoint_operator.controller.decide.rollout import from_time, to_time
from endpoint_operator.controller.observed.endpoint import CompiledEndpoint, ObservedEndpoint

# Once a version that ran has failed so often, an older one that ran takes its place meanwhile. The first
# failure is most likely a passing fault, and nobody asked for the older version.
_ATTEMPTS_BEFORE_PREVIOUS: Final = 2


@dataclass(frozen=True)
class SelectedVersion:
    """The entry that an endpoint gets; `reason` is None if it is the one that the spec describes."""

    entry: str | None
    reason: Reason | None = None
    message: str = ""


def select_version(
    observed: ObservedEndpoint, wanted: CompiledEndpoint, live: str | None, *, awaiting_gateway: bool
) -> SelectedVersion:
    """Select the entry for `observed`; `live` is the entry that the RayService has under its name."""
    if observed.suspended:
        return SelectedVersion(None, Reason.SUSPENDED, "spec.suspend is true.")
    rollout = observed.status.rollout
    if wanted.entry is None:
        assert wanted.reason is not None
        is_left_out = rollout is not None and rollout.phase is RolloutPhase.BACKING_OFF
        kept = None if awaiting_gateway or is_left_out else kept_entry(observed, live)
        return SelectedVersion(kept, wanted.reason, wanted.problem)
    if awaiting_gateway:
        message = "No Ray cluster serves. The gateway comes first, and models follow once it runs."
        return SelectedVersion(None, Reason.WAITING_FOR_GATEWAY, message)
    if rollout is not None and rollout.phase is RolloutPhase.BACKING_OFF:
        return _while_backing_off(observed, wanted.entry, rollout)
    if rollout is not None and rollout.phase is RolloutPhase.QUARANTINED:
        return SelectedVersion(
            next(iter(fallbacks(observed, wanted.entry)), None),
            Reason.QUARANTINED,
            "Ray did not accept a Serve config with several new versions, this one among them; they are "
            "tried again in smaller groups.",
        )
    return SelectedVersion(wanted.entry)


def kept_entry(observed: ObservedEndpoint, live: str | None) -> str | None:
    """Return the entry that is kept while the spec describes none."""
    kept = observed.own(live) if live is not None and observed.owns_entry else None
    return kept or observed.last_good_entry


def fallbacks(observed: ObservedEndpoint, wanted: str) -> list[str]:
    """Return the entries that may be served instead of `wanted`, the best one first."""
    last, previous = observed.last_good_entry, observed.previous_good_entry
    rollout = observed.status.rollout
    if wanted == last and rollout is not None and rollout.attempts < _ATTEMPTS_BEFORE_PREVIOUS:
        return []
    return [entry for entry in (last, previous) if entry is not None and entry != wanted]


def _while_backing_off(observed: ObservedEndpoint, wanted: str, rollout: Rollout) -> SelectedVersion:
    kept = next(iter(fallbacks(observed, wanted)[rollout.failed_fallbacks :]), None)
    if rollout.reason == Reason.RAY_SERVICE_UPGRADING:
        return SelectedVersion(
            None,
            Reason.RAY_SERVICE_UPGRADING,
            "This version did not answer before the upgrade and does not run on the new Ray cluster. It does "
            "not hold the upgrade up, and is deployed again afterwards.",
        )
    if rollout.reason == Reason.RAY_SERVICE_NOT_READY:
        return SelectedVersion(
            None,
            Reason.RAY_SERVICE_NOT_READY,
            "This version did not run while the RayService had no endpoints. KubeRay makes them once all "
            "versions run. It is deployed again afterwards.",
        )
    again = to_time(from_time(rollout.next_attempt_time))
    message = f"{_sentence(rollout.message)} Attempt {rollout.attempts} failed; the next one is at {again}."
    if rollout.reason == Reason.REJECTED_BY_RAY:
        return SelectedVersion(kept, Reason.REJECTED_BY_RAY, message)
    if kept is not None:
        return SelectedVersion(kept, Reason.ROLLED_BACK, message)
    has_run = wanted == observed.last_good_entry
    return SelectedVersion(None, Reason.DEPLOY_FAILED if has_run else Reason.WITHDRAWN, message)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
