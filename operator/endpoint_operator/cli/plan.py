"""Say what applying endpoints would do to what is served: which replicas go, what changes in place; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from endpoint_operator.api.profiles import Catalogue, UnfitResourcesError
from endpoint_operator.api.status import Refused
from endpoint_operator.api.types import ModelEndpoint
from endpoint_operator.serveconfig.compiler import compile_application
from endpoint_operator.serveconfig.diff import Change, Effect, changes_of
from endpoint_operator.serveconfig.document import fingerprint, own_entry, to_entry
from endpoint_operator.serveconfig.schema import Application


class Verdict(StrEnum):
    """What becomes of an endpoint."""

    NEW = "new"
    """It is not served yet."""
    LIVE = "live"
    """It changes in place; no replica restarts."""
    RESTART = "restart"
    """New replicas take the place of the running ones."""
    STOP = "stop"
    """It is suspended, and its replicas go."""
    UNCHANGED = "unchanged"
    """What is served is what the manifest describes."""
    REJECTED = "rejected"
    """It cannot be applied, or the operator would not serve it."""


@dataclass(frozen=True)
class Plan:
    """What becomes of one endpoint, and why."""

    name: str
    verdict: Verdict
    changes: tuple[Change, ...] = ()
    reason: str = ""

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Lines of a table: name, verdict, and why, one cause a line."""
        causes = [*([self.reason] if self.reason else []), *map(str, self.changes)] or [""]
        return [(self.name, str(self.verdict), causes[0]), *(("", "", cause) for cause in causes[1:])]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        changes = [change.to_json() for change in self.changes]
        return {"name": self.name, "plan": str(self.verdict), "changes": changes, "reason": self.reason}


@dataclass(frozen=True)
class Served:
    """What is served now: entries by application, and what the operator will not try again."""

    entries: Mapping[str, str]
    refused: Mapping[str, Refused] = field(default_factory=dict)
    # None: a file, to which namespaces mean nothing.
    namespace: str | None = None


def plan_endpoints(
    endpoints: Iterable[ModelEndpoint], catalogue: Catalogue, served: Served
) -> tuple[Plan, ...]:
    """Return a plan for each endpoint, by name; what is served besides them stays as it is."""
    return tuple(
        _plan(endpoint, catalogue, served) for endpoint in sorted(endpoints, key=lambda found: found.name)
    )


def _plan(endpoint: ModelEndpoint, catalogue: Catalogue, served: Served) -> Plan:
    name, live = endpoint.name, served.entries.get(endpoint.name)
    if served.namespace is not None and _namespace(endpoint) not in (None, served.namespace):
        reason = f"metadata.namespace: is {_namespace(endpoint)!r}, and this plan is for {served.namespace!r}"
        return Plan(name, Verdict.REJECTED, reason=reason)
    if endpoint.spec.suspend:
        return _plan_suspended(name, live)
    try:
        wanted = compile_application(endpoint, catalogue)
    except UnfitResourcesError as error:
        return _rejected(name, str(error), live)
    refused = served.refused.get(name)
    if refused is not None and refused.fingerprint == fingerprint(to_entry(wanted)):
        return _rejected(name, f"this version has failed before: {refused.message}", live)
    if live is None:
        return Plan(name, Verdict.NEW, reason="it is not served yet")
    return _compare(live, wanted)


def _namespace(endpoint: ModelEndpoint) -> str | None:
    metadata = endpoint.metadata
    return metadata.namespace if "namespace" in metadata.model_fields_set else None


def _plan_suspended(name: str, live: str | None) -> Plan:
    if live is None:
        return Plan(name, Verdict.UNCHANGED, reason="suspend: it is not served, and stays so")
    return Plan(name, Verdict.STOP, reason="suspend: its replicas go, and it no longer answers")


def _rejected(name: str, reason: str, live: str | None) -> Plan:
    kept = "; what is served stays" if live is not None else ""
    return Plan(name, Verdict.REJECTED, reason=reason + kept)


def _compare(live: str, wanted: Application) -> Plan:
    name = wanted.name
    try:
        changes = changes_of(live, wanted) if own_entry(live, name) is not None else None
    except (ValueError, KeyError):
        changes = None
    if changes is None:
        reason = "what is served was not written by this version of the operator; replicas may be replaced"
        return Plan(name, Verdict.RESTART, reason=reason)
    if not changes:
        return Plan(name, Verdict.UNCHANGED)
    replaces = any(change.effect is Effect.REPLACED for change in changes)
    return Plan(name, Verdict.RESTART if replaces else Verdict.LIVE, changes)
