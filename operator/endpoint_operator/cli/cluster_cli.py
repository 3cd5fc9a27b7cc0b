"""The commands `modelendpoint plan` and `status`, which look at a cluster without writing to it."""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from endpoint_operator.api.profiles import Catalogue
from endpoint_operator.cli.display import Display
from endpoint_operator.cli.inputs import (
    Files,
    catalogue_of,
    fail,
    messages,
    parse_profiles,
    read_manifests,
    text_of,
)
from endpoint_operator.cli.plan import Served, Verdict, plan_endpoints
from endpoint_operator.cli.status import HEADER, EndpointRow
from endpoint_operator.serveconfig.document import read_entries

Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; without it, the current one.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; without it, the context's.")
]


class Output(StrEnum):
    """How answers are printed."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]

Result = TypeVar("Result")


def plan(
    files: Files,
    against: Annotated[
        Path | None,
        typer.Option(help="What `render` printed, to compare with; without it, the live cluster."),
    ] = None,
    profiles: Annotated[
        Path | None,
        typer.Option(help="Catalogue of resource profiles; without it, the live cluster's or this machine."),
    ] = None,
    ray_service: Annotated[
        str | None, typer.Option(help="RayService; without it, the only one of the namespace.")
    ] = None,
    context: Context = None,
    namespace: Namespace = None,
    output: OutputOption = Output.TABLE,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 2 if anything changes.")] = False,
) -> None:
    """Say what applying the manifests would do to each endpoint: new, live, restart, stop or nothing."""
    workspace = read_manifests(files)
    if against is not None:
        served, catalogue = _rendered(against), catalogue_of(profiles)
    else:
        served, catalogue = _live(context, namespace, ray_service, profiles)
    plans = plan_endpoints(workspace.endpoints, catalogue, served)
    if output is Output.JSON:
        typer.echo(json.dumps({"endpoints": [plan.to_json() for plan in plans]}, ensure_ascii=False))
    else:
        Display(Console()).show_rows(("NAME", "PLAN", "WHY"), [row for plan in plans for row in plan.rows])
    verdicts = {plan.verdict for plan in plans}
    if Verdict.REJECTED in verdicts:
        raise typer.Exit(1)
    if exit_code and verdicts - {Verdict.UNCHANGED}:
        raise typer.Exit(2)


def status(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAMES…]", help="Without, all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")] = False,
    context: Context = None,
    namespace: Namespace = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the ModelEndpoints of a cluster, and why one is not ready."""
    missing: list[str] = []

    def show(home: str, rows: list[EndpointRow]) -> None:
        shown = [row for row in rows if not names or row.name in names]
        missing[:] = sorted(set(names or ()) - {row.name for row in shown})
        _show_status(shown, output, redraw=watch)
        for name in missing:
            messages.complain(f"namespace {home!r} has no ModelEndpoint {name!r}")
        if not rows and not names:
            messages.say(f"namespace {home!r} has no ModelEndpoints")

    with suppress(KeyboardInterrupt):
        from_cluster = _commands().show_rows(context, namespace, show, messages.complain if watch else None)
        _ask_cluster(from_cluster)
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


def _rendered(path: Path) -> Served:
    entries = read_entries(text_of(path))
    if not entries:
        raise fail(f"{path}: holds no Serve configuration such as `modelendpoint render` prints")
    return Served(entries)


def _live(
    context: str | None, namespace: str | None, ray_service: str | None, profiles: Path | None
) -> tuple[Served, Catalogue]:
    given = catalogue_of(profiles) if profiles is not None else None
    reading = _commands().read_served(context, namespace, ray_service, with_profiles=given is None)
    served, found = _ask_cluster(reading)
    return served, given or parse_profiles(found.text, found.source)


def _commands() -> ModuleType:
    """Return the module that needs the Kubernetes client, which not everybody has installed."""
    try:
        from endpoint_operator.cli import cluster as cluster_commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("kubernetes", "aiohttp"):
            raise
        raise fail(
            "this needs the Kubernetes client; install it with: pip install 'model-endpoints[operator]'"
        ) from error
    return cluster_commands


def _ask_cluster(question: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(question)
    except _commands().CannotReadClusterError as error:
        raise fail(str(error)) from error
