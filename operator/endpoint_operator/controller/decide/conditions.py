"""Turn the state of an endpoint into its conditions and the rest of its status; pure."""

from typing import Final

from endpoint_operator.api.status import (
    REASONS,
    Condition,
    ConditionStatus,
    ConditionType,
    ModelEndpointStatus,
    Reason,
)
from endpoint_operator.controller.decide.readiness import State
from endpoint_operator.controller.decide.selection import SelectedVersion
from endpoint_operator.controller.decide.upgrade import Blocked
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.rayservice import Replicas
from serve_app.contract import route_prefix

LONGEST_ERROR: Final = 1024


def to_status(
    observed: ObservedEndpoint,
    state: State,
    selected: SelectedVersion,
    *,
    base_url: str,
    replicas: Replicas | None,
    blocked: Blocked | None,
    time: str,
) -> ModelEndpointStatus:
    """Return the status of `observed`; a condition whose status stays the same keeps its transition time."""
    served = selected.entry is not None
    profile = observed.endpoint.spec.resources.profile if observed.endpoint else observed.status.profile
    return ModelEndpointStatus(
        observed_generation=observed.generation,
        conditions=_conditions(observed, state, selected, blocked, time),
        url=f"{base_url}{route_prefix(observed.name)}" if served else "",
        replicas=replicas.total if served and replicas else None,
        ready_replicas=replicas.ready if served and replicas else None,
        profile=profile,
        application=observed.name if served else "",
        last_error=_cut(state.last_error),
        last_good=observed.status.last_good,
        previous_good=observed.status.previous_good,
        rollout=observed.status.rollout,
        usage=observed.status.usage,
    )


def _conditions(
    observed: ObservedEndpoint, state: State, selected: SelectedVersion, blocked: Blocked | None, time: str
) -> list[Condition]:
    meaning = REASONS[state.reason]
    rows: list[tuple[ConditionType, ConditionStatus, Reason, str]] = []
    if meaning.ready is not None:
        rows.append((ConditionType.READY, meaning.ready, state.reason, state.message))
    rows += [
        (ConditionType.RECONCILING, _truth(meaning.reconciling), state.reason, state.message),
        (ConditionType.STALLED, _truth(meaning.stalled), state.reason, state.message),
        (ConditionType.ACCEPTED, *_accepted(selected)),
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


def _accepted(selected: SelectedVersion) -> tuple[ConditionStatus, Reason, str]:
    """Say whether the version that the spec describes is valid and in the Serve config."""
    if selected.reason is not None:
        return "False", selected.reason, selected.message
    return "True", Reason.ACCEPTED, "The spec is valid and part of the Serve config."


def _truth(value: bool) -> ConditionStatus:
    return "True" if value else "False"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"
