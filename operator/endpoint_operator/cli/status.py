"""`modelendpoint status`: the ModelEndpoints of a cluster, one line each, and why one is not ready."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from endpoint_operator.api.status import Condition, ConditionType, parse_status
from endpoint_operator.cli.display import Display
from endpoint_operator.cli.inputs import (
    Context,
    Namespace,
    Output,
    OutputOption,
    ask_cluster,
    cluster_queries,
    messages,
)

HEADER: Final = ("NAME", "READY", "REASON", "TASK", "PROFILE", "REPLICAS", "ERROR")

_UNSEEN: Final = "the operator has not seen this version yet"


@dataclass(frozen=True)
class EndpointRow:
    """One line of the table; what is not known is empty or None."""

    name: str
    ready: str
    reason: str
    task: str
    runtime: str
    profile: str
    replicas: int | None
    ready_replicas: int | None
    error: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells under HEADER."""
        known = self.replicas is not None and self.ready_replicas is not None
        replicas = f"{self.ready_replicas}/{self.replicas}" if known else "-"
        cells = (self.name, self.ready, self.reason, self.task, self.profile, replicas)
        # An error may have several lines.
        return (*(cell or "-" for cell in cells), " ".join(self.error.split()))

    def to_json(self) -> dict[str, Any]:
        """Return the line as a JSON object, with the names of the resource's fields."""
        members = asdict(self)
        return members | {"readyReplicas": members.pop("ready_replicas")}


def status(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAMES…]", help="Without, all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")] = False,
    ray_service: Annotated[
        str | None, typer.Option(help="Only endpoints that this RayService serves.")
    ] = None,
    context: Context = None,
    namespace: Namespace = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the ModelEndpoints of a cluster, and why one is not ready."""
    missing: list[str] = []

    def show(home: str, rows: list[EndpointRow]) -> None:
        where = (
            f"namespace {home!r}"
            if ray_service is None
            else f"RayService {ray_service!r} of namespace {home!r}"
        )
        shown = [row for row in rows if not names or row.name in names]
        missing[:] = sorted(set(names or ()) - {row.name for row in shown})
        _show_status(shown, output, redraw=watch)
        for name in missing:
            messages.complain(f"{where} has no ModelEndpoint {name!r}")
        if not rows and not names:
            messages.say(f"{where} has no ModelEndpoints")

    with suppress(KeyboardInterrupt):
        complain = messages.complain if watch else None
        ask_cluster(cluster_queries().show_rows(context, namespace, ray_service, show, complain))
    if missing:
        raise typer.Exit(1)


def _show_status(rows: list[EndpointRow], output: Output, *, redraw: bool) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps({"endpoints": [row.to_json() for row in rows]}, ensure_ascii=False))
        return
    console = Console()
    if redraw and console.is_terminal:
        console.clear()
    if rows:
        Display(console).show_rows(HEADER, [row.cells for row in rows])


def endpoint_rows(manifests: Iterable[Mapping[str, Any]]) -> list[EndpointRow]:
    """Return a line for each decoded ModelEndpoint, sorted by name."""
    return sorted((_row(manifest) for manifest in manifests), key=lambda row: row.name)


def _row(manifest: Mapping[str, Any]) -> EndpointRow:
    metadata, spec = manifest["metadata"], manifest.get("spec", {})
    status = parse_status(manifest.get("status"))
    # A suspended endpoint has no condition Ready, and the reason is the same in this one.
    ready, state = status.condition(ConditionType.READY), status.condition(ConditionType.RECONCILING)
    seen = state is not None and status.observed_generation >= metadata.get("generation", 0)
    return EndpointRow(
        name=metadata["name"],
        ready=_ready(ready) if seen else "Unknown",
        reason=state.reason if state and seen else "",
        task=spec.get("model", {}).get("task", ""),
        runtime=spec.get("runtime", ""),
        profile=spec.get("resources", {}).get("profile", ""),
        replicas=status.replicas,
        ready_replicas=status.ready_replicas,
        error=_error(ready, status.last_error) if seen else _UNSEEN,
    )


def _ready(condition: Condition | None) -> str:
    return condition.status if condition else ""


def _error(ready: Condition | None, last_error: str) -> str:
    if last_error or ready is None or ready.status == "True":
        return last_error
    return ready.message
