"""`modelendpoint plan`: what applying manifests would do to what is served."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from endpoint_operator.api.profiles import Profiles, UnfitResourcesError
from endpoint_operator.api.runtime import belongs
from endpoint_operator.api.sources import SourceNotAllowedError
from endpoint_operator.api.status import Rollout
from endpoint_operator.api.types import ModelEndpoint
from endpoint_operator.cli.display import Display
from endpoint_operator.cli.inputs import (
    Context,
    Files,
    Namespace,
    Output,
    OutputOption,
    RayServiceName,
    ask_cluster,
    cluster_queries,
    fail,
    profiles_in,
    profiles_of,
    read_manifests,
    read_text,
)
from endpoint_operator.serveconfig.compiler import EntryTooLargeError, compile_entry
from endpoint_operator.serveconfig.diff import Change, diff_entries
from endpoint_operator.serveconfig.document import fingerprint, own_entry, read_entries
from endpoint_operator.serveconfig.fields import Effect


class Action(StrEnum):
    """What applying a manifest does to its endpoint."""

    NEW = "new"
    """It is not served yet."""
    LIVE = "live"
    """It changes in place; no replica restarts."""
    RESTART = "restart"
    """New replicas take the place of the running ones."""
    STOP = "stop"
    """It is suspended, or another RayService is to serve it, and its replicas go."""
    UNCHANGED = "unchanged"
    """What is served is what the manifest describes."""
    REJECTED = "rejected"
    """It cannot be applied, or the operator would not serve it."""


@dataclass(frozen=True)
class Plan:
    """What applying its manifest does to one endpoint, and why."""

    name: str
    action: Action
    changes: tuple[Change, ...] = ()
    reason: str = ""

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Lines of a table: name, action and the causes, one per line."""
        causes = [*([self.reason] if self.reason else []), *map(str, self.changes)] or [""]
        return [(self.name, str(self.action), causes[0]), *(("", "", cause) for cause in causes[1:])]

    def to_json(self) -> dict[str, Any]:
        changes = [change.to_json() for change in self.changes]
        return {"name": self.name, "plan": str(self.action), "changes": changes, "reason": self.reason}


@dataclass(frozen=True)
class Place:
    """The RayService that a plan is for, and whether it serves the endpoints that name no runtime."""

    namespace: str
    ray_service: str
    is_default: bool

    def objection(self, endpoint: ModelEndpoint) -> str:
        """Return why this RayService does not serve `endpoint`; an empty text if it does."""
        runtime = endpoint.spec.runtime
        if belongs(runtime, self.ray_service, is_default=self.is_default):
            return ""
        if runtime:
            return f"runtime is {runtime!r}, and this plan is for {self.ray_service!r}"
        return f"runtime is not set, and {self.ray_service!r} is not the namespace's default runtime"


@dataclass(frozen=True)
class Served:
    """What is served now: entries by application, and how far the rollouts of endpoints are."""

    entries: Mapping[str, str]
    rollouts: Mapping[str, Rollout] = field(default_factory=dict)
    # None for a file, in which namespaces and runtimes mean nothing.
    place: Place | None = None


def plan(
    files: Files,
    against: Annotated[
        Path | None,
        typer.Option(help="What `render` printed, to compare with; without it, the live cluster."),
    ] = None,
    profiles: Annotated[
        Path | None,
        typer.Option(help="File of resource profiles; without it, the live cluster's or this machine."),
    ] = None,
    ray_service: RayServiceName = None,
    context: Context = None,
    namespace: Namespace = None,
    output: OutputOption = Output.TABLE,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 2 if anything changes.")] = False,
) -> None:
    """Say what applying the manifests would do to each endpoint: new, live, restart, stop or nothing."""
    workspace = read_manifests(files)
    if against is not None:
        served, resource_profiles = _rendered(against), profiles_of(profiles)
    else:
        served, resource_profiles = _live(context, namespace, ray_service, profiles)
    plans = plan_endpoints(workspace.endpoints, resource_profiles, served)
    if output is Output.JSON:
        typer.echo(json.dumps({"endpoints": [plan.to_json() for plan in plans]}, ensure_ascii=False))
    else:
        Display(Console()).show_rows(("NAME", "PLAN", "WHY"), [row for plan in plans for row in plan.rows])
    actions = {plan.action for plan in plans}
    if Action.REJECTED in actions:
        raise typer.Exit(1)
    if exit_code and actions - {Action.UNCHANGED}:
        raise typer.Exit(2)


def _rendered(path: Path) -> Served:
    entries = read_entries(read_text(path))
    if not entries:
        raise fail(f"{path}: holds no Serve configuration such as `modelendpoint render` prints")
    return Served(entries)


def _live(
    context: str | None, namespace: str | None, ray_service: str | None, profiles: Path | None
) -> tuple[Served, Profiles]:
    given = profiles_of(profiles) if profiles is not None else None
    query = cluster_queries().read_served(context, namespace, ray_service, with_profiles=given is None)
    served, found = ask_cluster(query)
    return served, given or profiles_in(found.text, found.source)


def plan_endpoints(
    endpoints: Iterable[ModelEndpoint], profiles: Profiles, served: Served
) -> tuple[Plan, ...]:
    """Return a plan for each endpoint, sorted by name; other served endpoints are not mentioned."""
    return tuple(
        _plan(endpoint, profiles, served) for endpoint in sorted(endpoints, key=lambda found: found.name)
    )


def _plan(endpoint: ModelEndpoint, profiles: Profiles, served: Served) -> Plan:
    name, live = endpoint.name, served.entries.get(endpoint.name)
    place = served.place
    if place is not None and _namespace(endpoint) not in (None, place.namespace):
        reason = f"metadata.namespace: is {_namespace(endpoint)!r}, and this plan is for {place.namespace!r}"
        return Plan(name, Action.REJECTED, reason=reason)
    elsewhere = place.objection(endpoint) if place is not None else ""
    if elsewhere or endpoint.spec.suspend:
        return _plan_stop(name, live, elsewhere)
    try:
        wanted = compile_entry(endpoint, profiles)
    except SourceNotAllowedError as error:
        return _not_allowed(endpoint, profiles, str(error), live)
    except (UnfitResourcesError, EntryTooLargeError) as error:
        return _rejected(name, str(error), live)
    rollout = served.rollouts.get(name)
    if rollout is not None and rollout.has_failed and rollout.fingerprint == fingerprint(wanted):
        again = f"it is tried again at {rollout.next_attempt_time}"
        return _rejected(name, f"this version has failed, and {again}: {rollout.message}", live)
    if live is None:
        return Plan(name, Action.NEW, reason="it is not served yet")
    return _compare(name, live, wanted)


def _namespace(endpoint: ModelEndpoint) -> str | None:
    metadata = endpoint.metadata
    return metadata.namespace if "namespace" in metadata.model_fields_set else None


def _plan_stop(name: str, live: str | None, elsewhere: str) -> Plan:
    cause, here = (elsewhere, " here") if elsewhere else ("suspend", "")
    if live is None:
        return Plan(name, Action.UNCHANGED, reason=f"{cause}: it is not served{here}, and stays so")
    return Plan(name, Action.STOP, reason=f"{cause}: its replicas go, and it no longer answers{here}")


def _rejected(name: str, reason: str, live: str | None) -> Plan:
    kept = "; what is served stays" if live is not None else ""
    return Plan(name, Action.REJECTED, reason=reason + kept)


def _not_allowed(endpoint: ModelEndpoint, profiles: Profiles, reason: str, live: str | None) -> Plan:
    """Return the plan for a source that is not allowed; what is served from such a one does not stay."""
    if live is None or own_entry(live, endpoint.name, profiles.sources) is not None:
        return _rejected(endpoint.name, reason, live)
    gone = "what is served goes, because its source is not allowed either"
    return Plan(endpoint.name, Action.REJECTED, reason=f"{reason}; {gone}")


def _compare(name: str, live: str, wanted: str) -> Plan:
    try:
        changes = diff_entries(live, wanted) if own_entry(live, name) is not None else None
    except (ValueError, KeyError):
        changes = None
    if changes is None:
        reason = "what is served was not written by this version of the operator; replicas may be replaced"
        return Plan(name, Action.RESTART, reason=reason)
    if not changes:
        return Plan(name, Action.UNCHANGED)
    replaces = any(change.effect is Effect.REPLACED for change in changes)
    return Plan(name, Action.RESTART if replaces else Action.LIVE, changes)
