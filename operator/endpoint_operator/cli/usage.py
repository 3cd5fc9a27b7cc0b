"""`modelendpoint usage`: what the ModelEndpoints of a cluster have used and cost, one line each."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from endpoint_operator.api.status import Usage, parse_status
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

HEADER: Final = (
    *("NAME", "PROFILE", "REQUESTS", "TOKENS IN", "TOKENS OUT"),
    *("COMPUTE S", "REPLICA S", "IDLE", "MEMORY", "COST", "SINCE"),
)


@dataclass(frozen=True)
class UsageRow:
    """One line of the table; without a usage, nothing is known yet."""

    name: str
    runtime: str
    profile: str
    usage: Usage | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells under HEADER."""
        known = self.usage
        if known is None:
            return (self.name, self.profile, *["-"] * (len(HEADER) - 2))
        return (
            self.name,
            self.profile,
            str(known.requests),
            str(known.input_tokens),
            str(known.output_tokens),
            f"{known.compute_seconds:.1f}",
            f"{known.replica_seconds:.0f}",
            _percent(known.idle_share),
            _percent(known.memory_share),
            "-" if known.cost is None else f"{known.cost:.4f}",
            known.since,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the line as a JSON object, with the names of the resource's fields."""
        known = self.usage
        usage = known.model_dump(mode="json", by_alias=True, exclude_none=True) if known else None
        return {"name": self.name, "runtime": self.runtime, "profile": self.profile, "usage": usage}


def usage(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAMES…]", help="Without, all.")] = None,
    ray_service: Annotated[
        str | None, typer.Option(help="Only endpoints that this RayService serves.")
    ] = None,
    context: Context = None,
    namespace: Namespace = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what the ModelEndpoints of a cluster have used, and what they have cost."""
    home, manifests = ask_cluster(cluster_queries().read_endpoints(context, namespace, ray_service))
    rows = usage_rows(manifests)
    shown = [row for row in rows if not names or row.name in names]
    if output is Output.JSON:
        typer.echo(json.dumps({"endpoints": [row.to_json() for row in shown]}, ensure_ascii=False))
    elif shown:
        Display(Console()).show_rows(HEADER, [row.cells for row in shown])
    elif not names:
        messages.say(f"namespace {home!r} has no ModelEndpoints")
    missing = sorted(set(names or ()) - {row.name for row in rows})
    for name in missing:
        messages.complain(f"namespace {home!r} has no ModelEndpoint {name!r}")
    if missing:
        raise typer.Exit(1)


def usage_rows(manifests: Iterable[Mapping[str, Any]]) -> list[UsageRow]:
    """Return a line for each decoded ModelEndpoint, sorted by name."""
    return sorted((_row(manifest) for manifest in manifests), key=lambda row: row.name)


def _row(manifest: Mapping[str, Any]) -> UsageRow:
    spec = manifest.get("spec", {})
    return UsageRow(
        name=manifest["metadata"]["name"],
        runtime=spec.get("runtime", ""),
        profile=spec.get("resources", {}).get("profile", ""),
        usage=parse_status(manifest.get("status")).usage,
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
