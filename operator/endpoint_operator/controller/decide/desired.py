"""Compute from one observation of the cluster what the Serve config and all statuses should be; pure.

The time and all that was read are passed in. Between two observations only timers are kept; what must survive
a restart is in the statuses, in the rollout of each version. No endpoint depends on another one, except that
new ones need room in the Serve config, and that Ray may reject several at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from endpoint_operator.api.status import ConditionType, ModelEndpointStatus, Reason, Rollout, RolloutPhase
from endpoint_operator.controller.decide.bisect import on_accepted, on_rejected
from endpoint_operator.controller.decide.budget import apply_size_budget
from endpoint_operator.controller.decide.conditions import to_status
from endpoint_operator.controller.decide.document import desired_document
from endpoint_operator.controller.decide.isolation import Isolation
from endpoint_operator.controller.decide.readiness import Input, evaluate
from endpoint_operator.controller.decide.rollout import (
    Clock,
    Version,
    advance,
    to_time,
    was_with_ray,
    with_good_version,
)
from endpoint_operator.controller.decide.selection import SelectedVersion, kept_entry, select_version
from endpoint_operator.controller.decide.situation import Situation, situation_of
from endpoint_operator.controller.decide.upgrade import serves_on_active, upgrade_block
from endpoint_operator.controller.decide.usage import with_usage
from endpoint_operator.controller.observed.endpoint import CompiledEndpoint, ObservedEndpoint
from endpoint_operator.controller.observed.ray_view import RayView
from endpoint_operator.controller.observed.rayservice import Replicas
from endpoint_operator.controller.observed.rejection import Rejection
from endpoint_operator.controller.observed.usage import UsageView
from endpoint_operator.serveconfig.document import fingerprint, to_document
from serve_app.contract import GATEWAY_APPLICATION


@dataclass(frozen=True)
class Observation:
    """One observation of the cluster."""

    # The endpoints that this operator serves, and what their specs compile to, by name.
    endpoints: Sequence[ObservedEndpoint]
    compiled: Mapping[str, CompiledEndpoint]
    # The gateway's entry of the Serve config.
    gateway: str
    view: RayView
    # The names of all ModelEndpoints, also of those that leave and of those of another runtime.
    listed: frozenset[str]
    # What KubeRay's events say of the live Serve config.
    rejection: Rejection = Rejection.NONE
    # What the models have used; None while nobody says it.
    usage: UsageView | None = None


@dataclass(frozen=True)
class Policy:
    """What the operator's settings say about the Serve config and the addresses in statuses."""

    document_limit: int
    base_url: str


@dataclass(frozen=True)
class DesiredState:
    """The desired state, and when it may change by itself."""

    # The Serve config; None without a RayService.
    document: str | None
    # By endpoint.
    statuses: Mapping[str, ModelEndpointStatus]
    reasons: Mapping[str, Reason]
    # Endpoints that keep KubeRay from moving to a new Ray cluster.
    blocking: frozenset[str]
    # Endpoints whose status must be stored before the Serve config: after a restart in between, the operator
    # would deploy their failed versions again.
    write_first: frozenset[str]
    # Applications of the live Serve config whose endpoints were not listed.
    absent: frozenset[str]
    # Seconds until a timer may change the desired state.
    requeue_after: float | None
    # Tracebacks of errors of the operator's own, by endpoint.
    errors: Mapping[str, str] = field(default_factory=dict)


def desired_state(observed: Observation, policy: Policy, clock: Clock) -> DesiredState:
    """Return the desired state; the timers of `clock` have been started for this round."""
    situation = situation_of(observed.view, observed.rejection, clock)
    isolation = Isolation()
    endpoints = _with_next_rollouts(observed, situation, isolation)
    endpoints = _with_usages(endpoints, observed.usage, situation, isolation)
    selected = _select(endpoints, observed.compiled, situation, isolation)
    room = policy.document_limit - len(to_document({GATEWAY_APPLICATION: observed.gateway}).encode())
    selected = apply_size_budget(endpoints, selected, situation.live, room)
    statuses, reasons = {}, {}
    for endpoint in endpoints:
        name = endpoint.name
        decided = isolation.run(name, partial(_status, endpoint, selected[name], situation, policy), None)
        if decided is None:
            selected[name] = SelectedVersion(
                situation.live.get(name), Reason.INTERNAL_ERROR, isolation.messages[name]
            )
            decided = _without_details(endpoint, selected[name], situation, policy)
        statuses[name], reasons[name] = decided
    return DesiredState(
        document=desired_document(situation, observed.gateway, selected),
        statuses=statuses,
        reasons=reasons,
        blocking=_blocking(statuses),
        write_first=_write_first(observed.endpoints, endpoints),
        absent=frozenset(situation.live.keys() - observed.listed - {GATEWAY_APPLICATION}),
        requeue_after=clock.watch.seconds_to_next,
        errors=isolation.tracebacks,
    )


def _with_next_rollouts(
    observed: Observation, situation: Situation, isolation: Isolation
) -> list[ObservedEndpoint]:
    """Return the endpoints with the next state of each rollout, and with the versions that have run."""
    versions = {}
    for each in observed.endpoints:
        # What is kept instead of a version that cannot be deployed must not hold up others either.
        entry = observed.compiled[each.name].entry or kept_entry(each, situation.live.get(each.name))
        if entry is not None and not each.suspended:
            versions[each.name] = Version(entry, each.generation)
    before = [each for each in observed.endpoints if each.name in versions]
    rollouts = {}
    for each in before:
        rollout = isolation.run(each.name, partial(_advance, each, versions[each.name], situation), None)
        if rollout is not None:
            rollouts[each.name] = rollout
    rollouts |= _bisect(before, rollouts, versions, situation)

    return [_updated(each, rollouts.get(each.name), versions.get(each.name)) for each in observed.endpoints]


def _with_usages(
    endpoints: list[ObservedEndpoint], usage: UsageView | None, situation: Situation, isolation: Isolation
) -> list[ObservedEndpoint]:
    if usage is None:
        return endpoints

    def updated(endpoint: ObservedEndpoint) -> ObservedEndpoint:
        return with_usage(endpoint, usage, situation.live.get(endpoint.name), len(endpoints))

    return [isolation.run(each.name, partial(updated, each), each) for each in endpoints]


def _updated(
    endpoint: ObservedEndpoint, rollout: Rollout | None, version: Version | None
) -> ObservedEndpoint:
    if rollout is None or version is None:
        # A spec that describes no version leaves the rollout of the last one as it is; a suspension ends it.
        rollout = None if endpoint.suspended else endpoint.status.rollout
    status = endpoint.status.model_copy(update={"rollout": rollout})
    if version is not None:
        status = with_good_version(status, version)
    # One that stays the same keeps what it has parsed of its good versions.
    return endpoint if status == endpoint.status else replace(endpoint, status=status)


def _advance(endpoint: ObservedEndpoint, version: Version, situation: Situation) -> Rollout | None:
    if situation.view.service is None:
        return endpoint.status.rollout
    return advance(endpoint.status.rollout, version, situation.sighting(endpoint, version), situation.clock)


def _bisect(
    endpoints: Sequence[ObservedEndpoint],
    rollouts: Mapping[str, Rollout],
    versions: Mapping[str, Version],
    situation: Situation,
) -> dict[str, Rollout]:
    service = situation.view.service
    order = [each.name for each in endpoints if each.name in rollouts]
    live = [name for name in order if situation.live.get(name) == versions[name].entry]
    if service is None:
        return {}
    if situation.rejected:
        return on_rejected(rollouts, live, situation.certain, situation.clock)
    if service.active is not None and not service.is_behind:
        return on_accepted(rollouts, order, live)
    return {}


def _select(
    endpoints: Sequence[ObservedEndpoint],
    compiled: Mapping[str, CompiledEndpoint],
    situation: Situation,
    isolation: Isolation,
) -> dict[str, SelectedVersion]:
    def select(endpoint: ObservedEndpoint) -> SelectedVersion:
        live = situation.live.get(endpoint.name)
        awaiting = situation.awaiting_gateway or situation.view.service is None
        return select_version(endpoint, compiled[endpoint.name], live, awaiting_gateway=awaiting)

    return {
        each.name: isolation.run(
            each.name, partial(select, each), SelectedVersion(situation.live.get(each.name))
        )
        for each in endpoints
    }


def _status(
    endpoint: ObservedEndpoint, selected: SelectedVersion, situation: Situation, policy: Policy
) -> tuple[ModelEndpointStatus, Reason]:
    view, entry = situation.view, selected.entry
    live = entry is not None and situation.live.get(endpoint.name) == entry
    state = evaluate(_input(endpoint, selected, situation))
    status = to_status(
        endpoint,
        state,
        selected,
        base_url=policy.base_url,
        replicas=_replicas(endpoint, view),
        blocked=upgrade_block(endpoint, entry, view, situation.clock) if live and entry is not None else None,
        time=to_time(situation.clock.now),
    )
    return status, state.reason


def _replicas(endpoint: ObservedEndpoint, view: RayView) -> Replicas | None:
    report, stored = (view.active or {}).get(endpoint.name), endpoint.status
    if report is not None:
        return report.replicas
    if view.dashboard_awaited and stored.replicas is not None and stored.ready_replicas is not None:
        # A process that has just started does not unsay what was known.
        return Replicas(stored.replicas, stored.ready_replicas)
    return None


def _input(endpoint: ObservedEndpoint, selected: SelectedVersion, situation: Situation) -> Input:
    view, entry = situation.view, selected.entry
    # A process that has just started does not unsay that nothing is known.
    was_stale = view.dashboard_awaited and endpoint.stored_reason == Reason.RAY_SERVICE_STATUS_STALE
    given = Input(selected, view, stale=situation.stale or was_stale, behind=situation.behind)
    if entry is None or situation.live.get(endpoint.name) != entry:
        return given
    return replace(
        given,
        report=view.applications.get(endpoint.name),
        deployed=situation.is_deployed(endpoint, entry),
        has_run=_has_run(endpoint, entry),
        answered=view.dashboard_awaited
        and not view.is_upgrading
        and endpoint.stored_reason == Reason.SERVING,
        was_deployed=was_with_ray(endpoint.status.rollout, entry),
        serves_on_active=serves_on_active(endpoint, entry, view),
        out_of_patience=situation.has_waited_long_for_a_node(endpoint, entry),
    )


def _has_run(endpoint: ObservedEndpoint, entry: str) -> bool:
    rollout = endpoint.status.rollout
    if rollout is None or rollout.fingerprint != fingerprint(entry):
        return endpoint.has_run(entry)
    return rollout.phase is RolloutPhase.PROVEN


def _without_details(
    endpoint: ObservedEndpoint, selected: SelectedVersion, situation: Situation, policy: Policy
) -> tuple[ModelEndpointStatus, Reason]:
    """Return the status of an endpoint about which nothing could be decided."""
    state = evaluate(Input(selected, situation.view))
    time = to_time(situation.clock.now)
    status = to_status(
        endpoint, state, selected, base_url=policy.base_url, replicas=None, blocked=None, time=time
    )
    return status, state.reason


def _blocking(statuses: Mapping[str, ModelEndpointStatus]) -> frozenset[str]:
    kind = ConditionType.UPGRADE_BLOCKED
    return frozenset(name for name, status in statuses.items() if status.condition(kind))


def _write_first(before: Sequence[ObservedEndpoint], after: Sequence[ObservedEndpoint]) -> frozenset[str]:
    def is_left_out(old: ObservedEndpoint, new: ObservedEndpoint) -> bool:
        rollout = new.status.rollout
        if rollout is None or rollout == old.status.rollout:
            return False
        return rollout.phase is RolloutPhase.BACKING_OFF

    return frozenset(new.name for old, new in zip(before, after, strict=True) if is_left_out(old, new))
