"""Decide from one observation of the cluster what the Serve config and all statuses should be; pure.

The time and all that was read are passed in. Between two observations, only timers and Ray's answers to Serve
configs are kept; what must survive a restart is in the statuses.

After a restart the timers start at zero. Until they have run, a Ready reason already stored for the current
generation is kept; otherwise every restart would reset `Serving` and `Unschedulable` to `Deploying`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.profiles import Profiles
from endpoint_operator.api.status import ConditionType, ModelEndpointStatus, Reason
from endpoint_operator.controller.decide.admission import (
    Admission,
    CompiledEndpoint,
    Holds,
    admit,
    compile_endpoint,
    leave_out_what_has_no_room,
)
from endpoint_operator.controller.decide.conditions import Case, Replicas, judge, to_status
from endpoint_operator.controller.decide.memory import Evidence, remember
from endpoint_operator.controller.decide.stopwatch import Stopwatch
from endpoint_operator.controller.decide.suspicion import Suspicion
from endpoint_operator.controller.decide.upgrade import has_run_on_active, serves_on_active, upgrade_block
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.messages import unschedulable_message
from endpoint_operator.controller.observed.rayservice import RayService
from endpoint_operator.controller.settings import Deadlines
from endpoint_operator.serveconfig.compiler import gateway_application
from endpoint_operator.serveconfig.document import read_entries, to_document, to_entry
from serve_app.contract import GATEWAY_APPLICATION

# Stands for the generation of an entry that had run before this process started.
_LONG_AGO: Final = -1


@dataclass(frozen=True)
class Snapshot:
    """One observation of the cluster."""

    endpoints: Sequence[ObservedEndpoint]
    service: RayService | None
    profiles: Profiles
    # By application; None if they are not known.
    replicas: Mapping[str, Replicas] | None = None
    # KubeRay's events say that Ray has rejected the live Serve config.
    refused: bool = False
    # The dashboard has answered before and does not any more.
    dashboard_unreachable: bool = False


@dataclass(frozen=True)
class Decision:
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
    verdicts: frozenset[str]
    # Applications of the live Serve config whose endpoints were not listed.
    absent: frozenset[str]
    # Seconds until a timer may change the decision.
    requeue_after: float | None


class Decider:
    """Decides again and again, and keeps the timers in between."""

    def __init__(self, deadlines: Deadlines, document_limit: int, base_url: str) -> None:
        self._deadlines = deadlines
        self._document_limit = document_limit
        self._base_url = base_url
        self._watch = Stopwatch()
        self._suspicion = Suspicion()
        self._service_uid = ""
        # By uid: an entry of the live Serve config, and the generation in which it was first seen there.
        self._appeared: dict[str, tuple[str, int]] = {}
        self._profiles: Profiles | None = None
        self._gateway = ""
        self._wanted: dict[tuple[str, int], CompiledEndpoint] = {}
        # By endpoint: entries that are left out until the upgrade to this cluster is over.
        self._left_behind: dict[str, str] = {}
        self._pending_cluster = ""

    def decide(self, snapshot: Snapshot, now: float, time: str) -> Decision:
        """Return the desired state; `now` drives the timers, and `time` is for conditions that change."""
        self._watch.begin(now)
        endpoints = [endpoint for endpoint in snapshot.endpoints if not endpoint.deleting]
        wanted = self._compile(endpoints, snapshot.profiles)
        service = snapshot.service
        live = read_entries(service.document) if service else {}
        behind = False
        convicted: Mapping[str, str] = {}
        remembered = endpoints
        if service is not None:
            behind = service.is_behind and self._watch.held(
                ("behind", service.observed_generation), self._deadlines.behind_seconds
            )
            convicted = self._follow(snapshot, service, live, behind or snapshot.refused, wanted)
            self._note_appearances(endpoints, live, service)
            remembered = [
                remember(endpoint, wanted[endpoint.name], self._evidence(endpoint, live, service, convicted))
                for endpoint in endpoints
            ]
        self._leave_behind(endpoints, live, service)
        holds = self._holds(service, live)
        admissions = {
            endpoint.name: admit(endpoint, wanted[endpoint.name], live.get(endpoint.name), holds)
            for endpoint in remembered
        }
        room = self._document_limit - len(self._gateway)
        admissions = leave_out_what_has_no_room(remembered, admissions, live.keys(), room)
        statuses, reasons = self._statuses(
            remembered, admissions, snapshot, live, behind or snapshot.dashboard_unreachable, time
        )
        return Decision(
            document=self._document(service, live, admissions) if service else None,
            statuses=statuses,
            reasons=reasons,
            blocking=_blocking(statuses),
            verdicts=_verdicts(endpoints, remembered),
            absent=frozenset(live.keys() - {e.name for e in snapshot.endpoints} - {GATEWAY_APPLICATION}),
            requeue_after=self._watch.seconds_to_next,
        )

    def _compile(
        self, endpoints: Sequence[ObservedEndpoint], profiles: Profiles
    ) -> dict[str, CompiledEndpoint]:
        known = self._wanted if profiles is self._profiles else {}
        self._profiles = profiles
        self._gateway = to_entry(gateway_application(profiles))
        self._wanted = {
            key: known[key] if key in known else compile_endpoint(endpoint, profiles)
            for endpoint in endpoints
            for key in [(endpoint.uid, endpoint.generation)]
        }
        return {endpoint.name: self._wanted[endpoint.uid, endpoint.generation] for endpoint in endpoints}

    def _follow(
        self,
        snapshot: Snapshot,
        service: RayService,
        live: Mapping[str, str],
        refused: bool,
        wanted: Mapping[str, CompiledEndpoint],
    ) -> Mapping[str, str]:
        """Note whether Ray has accepted the live Serve config; if not, return the entries at fault."""
        self._suspicion.forget_all_but(
            {name: each.entry for name, each in wanted.items() if each.entry is not None}
        )
        if service.is_behind and refused:
            good = {
                endpoint.name: endpoint.last_good_entry
                for endpoint in snapshot.endpoints
                if endpoint.last_good_entry is not None
            }
            return self._suspicion.was_refused(live, good, certain=snapshot.refused)
        if service.active is not None and not service.is_behind:
            self._suspicion.was_taken(live)
        return {}

    def _note_appearances(
        self, endpoints: Sequence[ObservedEndpoint], live: Mapping[str, str], service: RayService
    ) -> None:
        first_look = service.uid != self._service_uid and not self._service_uid
        self._service_uid = service.uid
        appeared = {}
        for endpoint in endpoints:
            entry = live.get(endpoint.name)
            if entry is None:
                continue
            since = _LONG_AGO if first_look and entry == endpoint.last_good_entry else service.generation
            known = self._appeared.get(endpoint.uid)
            appeared[endpoint.uid] = known if known and known[0] == entry else (entry, since)
        self._appeared = appeared

    def _is_settled(self, endpoint: ObservedEndpoint, entry: str, service: RayService) -> bool:
        """Return whether the RayService's status describes `entry`, which is in the live Serve config.

        KubeRay reads the statuses of the applications before it sends Ray a Serve config, but then reports
        the new generation together with the old statuses.
        """
        _, since = self._appeared[endpoint.uid]
        if since == _LONG_AGO:
            return True
        seen = service.observed_generation >= since or service.active is None
        held = seen and self._watch.held(("settled", endpoint.uid, entry), self._deadlines.settle_seconds)
        served = endpoint.stored_reason == Reason.SERVING and entry == endpoint.last_good_entry
        return held or served or endpoint.stored_reason == Reason.UNSCHEDULABLE

    def _evidence(
        self,
        endpoint: ObservedEndpoint,
        live: Mapping[str, str],
        service: RayService,
        convicted: Mapping[str, str],
    ) -> Evidence:
        entry = live.get(endpoint.name)
        report = service.applications.get(endpoint.name)
        if entry is None:
            return Evidence(None)
        settled = self._is_settled(endpoint, entry, service)
        # A version that the active cluster has run is never given up because of the pending one.
        proven = has_run_on_active(endpoint, entry, service)
        failed = settled and not proven and report is not None and report.status == "DEPLOY_FAILED"
        fact = ("failed", _cluster(service), endpoint.uid, entry)
        return Evidence(
            entry,
            report if settled else None,
            service.is_upgrading,
            failed_for_good=failed and self._watch.held(fact, self._deadlines.failed_seconds),
            convicted=convicted.get(endpoint.name) == entry,
        )

    def _holds(self, service: RayService | None, live: Mapping[str, str]) -> Holds:
        if service is None:
            return Holds(awaiting_gateway=True)
        # An operator that put models into the Serve config had seen the service run.
        has_run = service.has_run or bool(live.keys() - {GATEWAY_APPLICATION})
        return Holds(
            not has_run, self._suspicion.suspects, self._suspicion.taken or {}, dict(self._left_behind)
        )

    def _leave_behind(
        self,
        endpoints: Sequence[ObservedEndpoint],
        live: Mapping[str, str],
        service: RayService | None,
    ) -> None:
        """Note the entries that do not get to run on the pending cluster and were not served before."""
        cluster = service.pending.cluster if service and service.is_upgrading and service.pending else ""
        if cluster != self._pending_cluster:
            self._left_behind = {}
            self._pending_cluster = cluster
        if service is None or not cluster:
            return
        for endpoint in endpoints:
            entry = live.get(endpoint.name)
            if entry is None or serves_on_active(endpoint, entry, service):
                continue
            report = service.applications.get(endpoint.name)
            waits = report is not None and report.status != "RUNNING"
            fact = ("left behind", cluster, endpoint.uid, entry)
            if waits and self._watch.held(fact, self._deadlines.failed_seconds):
                self._left_behind[endpoint.name] = entry

    def _document(
        self, service: RayService, live: Mapping[str, str], admissions: Mapping[str, Admission]
    ) -> str:
        entries = {name: each.entry for name, each in admissions.items() if each.entry is not None}
        document = to_document({**entries, GATEWAY_APPLICATION: self._gateway})
        if document != service.document.rstrip("\n"):
            return document
        if not self._is_missing_something(service, live):
            return service.document
        # KubeRay sends a Serve config again if the string differs; to Ray a newline makes no difference.
        return document if service.document.endswith("\n") else f"{document}\n"

    def _is_missing_something(self, service: RayService, live: Mapping[str, str]) -> bool:
        # If Ray has no application at all, KubeRay sends the Serve config again by itself.
        trustworthy = not service.is_behind and service.pending is None and not service.suspended
        if not trustworthy or not service.applications:
            return False
        # Every timer must be asked in each round, or it starts again.
        missing = [
            self._watch.held(("missing", name, service.document), self._deadlines.missing_seconds)
            for name in live
            if name not in service.applications
        ]
        return any(missing)

    def _statuses(
        self,
        endpoints: Sequence[ObservedEndpoint],
        admissions: Mapping[str, Admission],
        snapshot: Snapshot,
        live: Mapping[str, str],
        stale: bool,
        time: str,
    ) -> tuple[dict[str, ModelEndpointStatus], dict[str, Reason]]:
        statuses, reasons = {}, {}
        for endpoint in endpoints:
            admission = admissions[endpoint.name]
            entry = live.get(endpoint.name)
            case = self._case(endpoint, admission, snapshot.service, entry, stale)
            verdict = judge(case)
            reasons[endpoint.name] = verdict.reason
            statuses[endpoint.name] = to_status(
                endpoint,
                verdict,
                admission,
                base_url=self._base_url,
                replicas=(snapshot.replicas or {}).get(endpoint.name),
                blocked=case.blocked,
                time=time,
            )
        return statuses, reasons

    def _case(
        self,
        endpoint: ObservedEndpoint,
        admission: Admission,
        service: RayService | None,
        entry: str | None,
        stale: bool,
    ) -> Case:
        if service is None or entry is None or entry != admission.entry:
            return Case(admission, service, stale=stale)
        report = service.applications.get(endpoint.name)
        return Case(
            admission,
            service,
            report,
            stale,
            settled=self._is_settled(endpoint, entry, service),
            serves_on_active=serves_on_active(endpoint, entry, service),
            blocked=upgrade_block(endpoint, entry, service),
            out_of_patience=report is not None
            and unschedulable_message(report) != ""
            and self._has_waited_long(endpoint, entry),
        )

    def _has_waited_long(self, endpoint: ObservedEndpoint, entry: str) -> bool:
        held = self._watch.held(("no place", endpoint.uid, entry), self._deadlines.unschedulable_seconds)
        return held or endpoint.stored_reason == Reason.UNSCHEDULABLE


def _cluster(service: RayService) -> str:
    return service.reporting.cluster if service.reporting else ""


def _blocking(statuses: Mapping[str, ModelEndpointStatus]) -> frozenset[str]:
    kind = ConditionType.UPGRADE_BLOCKED
    return frozenset(name for name, status in statuses.items() if status.condition(kind))


def _verdicts(before: Sequence[ObservedEndpoint], after: Sequence[ObservedEndpoint]) -> frozenset[str]:
    def was_judged(old: ObservedEndpoint, new: ObservedEndpoint) -> bool:
        lost = old.status.last_good is not None and new.status.last_good is None
        return lost or (new.status.refused is not None and old.status.refused != new.status.refused)

    return frozenset(new.name for old, new in zip(before, after, strict=True) if was_judged(old, new))
