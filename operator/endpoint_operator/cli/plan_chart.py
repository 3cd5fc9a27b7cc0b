"""`modelendpoint plan-chart`: what an upgrade of the chart would do to the Ray cluster that serves."""

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from endpoint_operator.cli.chart_changes import ChartChange, Effect, chart_changes
from endpoint_operator.cli.display import Display
from endpoint_operator.cli.inputs import (
    Context,
    Namespace,
    Output,
    OutputOption,
    RayServiceName,
    ask_cluster,
    cluster_queries,
    fail,
    read_text,
)


def plan_chart(
    rendered: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `helm template` prints; - for standard input.")
    ],
    ray_service: RayServiceName = None,
    context: Context = None,
    namespace: Namespace = None,
    output: OutputOption = Output.TABLE,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 2 if the Ray cluster would be replaced.")
    ] = False,
) -> None:
    """Say what an upgrade to these manifests of the chart would do to the Ray cluster that serves."""
    text = sys.stdin.read() if str(rendered) == "-" else read_text(rendered)
    live = ask_cluster(cluster_queries().read_ray_service(context, namespace, ray_service))
    changes = chart_changes(live.spec, _wanted(text, live.name))
    if output is Output.JSON:
        told = {"rayService": live.name, "changes": [change.to_json() for change in changes]}
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        Display(Console()).show_rows(("EFFECT", "CHANGE"), _rows(changes))
    if exit_code and any(change.effect is Effect.REPLACED for change in changes):
        raise typer.Exit(2)


def _wanted(text: str, name: str) -> dict[str, Any]:
    """Return the spec of the RayService `name` in manifests; end the command if it is not there."""
    try:
        documents = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except yaml.YAMLError as error:
        raise fail(f"this is not YAML: {error}") from error
    found = [each for each in documents if each.get("kind") == "RayService"]
    for service in found:
        if service["metadata"]["name"] == name:
            return dict(service["spec"])
    names = ", ".join(service["metadata"]["name"] for service in found) or "none"
    raise fail(f"the manifests have no RayService {name!r}; there is {names}")


def _rows(changes: tuple[ChartChange, ...]) -> list[tuple[str, str]]:
    """Return the changes by what they do, the heaviest first; each effect is written once."""
    if not changes:
        return [("nothing changes", "")]
    ordered = sorted(changes, key=lambda change: list(Effect).index(change.effect))
    rows = []
    for effect, same in groupby(ordered, key=lambda change: change.effect):
        paths = [str(change) for change in same]
        rows += [(str(effect), paths[0]), *(("", path) for path in paths[1:])]
    return rows
