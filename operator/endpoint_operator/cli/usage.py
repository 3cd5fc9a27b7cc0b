"""`modelendpoint usage`: what ModelEndpoints have used and cost, one line each.

A cluster has it in the statuses. A service without a cluster is asked itself, and knows two hours.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError
from rich.console import Console

from endpoint_operator.api.status import Usage, parse_status
from endpoint_operator.api.usage import with_minutes
from endpoint_operator.cli.display import Display
from endpoint_operator.cli.inputs import (
    Context,
    Namespace,
    Output,
    OutputOption,
    ask_cluster,
    cluster_queries,
    fail,
    messages,
)
from endpoint_operator.cli.model_client import another_program, ask
from serve_app.contract import MINUTE_SECONDS, USAGE_PATH, ModelUsage, UsageReport

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
        profile = self.profile or "-"
        if known is None:
            return (self.name, profile, *["-"] * (len(HEADER) - 2))
        return (
            self.name,
            profile,
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
    url: Annotated[
        str | None, typer.Option(help="Ask a service without a cluster: the last two hours, without costs.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what the ModelEndpoints of a cluster have used, and what they have cost."""
    if url is None:
        home, manifests = ask_cluster(cluster_queries().read_endpoints(context, namespace, ray_service))
        rows, has_no = usage_rows(manifests), f"namespace {home!r} has no ModelEndpoint"
    elif context or namespace or ray_service:
        raise fail("--url: asks a service; leave --context, --namespace and --ray-service out")
    else:
        rows, has_no = service_rows(url), f"{url} knows of no use of a ModelEndpoint"
    shown = [row for row in rows if not names or row.name in names]
    if output is Output.JSON:
        typer.echo(json.dumps({"endpoints": [row.to_json() for row in shown]}, ensure_ascii=False))
    elif shown:
        Display(Console()).show_rows(HEADER, [row.cells for row in shown])
    elif not names:
        messages.say(has_no)
    missing = sorted(set(names or ()) - {row.name for row in rows})
    for name in missing:
        messages.complain(f"{has_no} {name!r}")
    if missing:
        raise typer.Exit(1)


def usage_rows(manifests: Iterable[Mapping[str, Any]]) -> list[UsageRow]:
    """Return a line for each decoded ModelEndpoint, sorted by name."""
    return sorted((_row(manifest) for manifest in manifests), key=lambda row: row.name)


def service_rows(url: str) -> list[UsageRow]:
    """Return a line for each model of the service at `url`, sorted by name; end the command without them."""
    hidden = f"{url} does not tell clients its usage; leave --url out to ask the cluster behind it"
    answer = ask(url, "GET", url.rstrip("/") + USAGE_PATH, sentences={404: hidden})
    try:
        report = UsageReport.model_validate(answer)
    except ValidationError:
        raise another_program(url, answer) from None
    return [UsageRow(name, "", "", _summed(model)) for name, model in sorted(report.models.items())]


def _summed(model: ModelUsage) -> Usage | None:
    """Return the sum over the minutes that are known, the one that is not over included."""
    minutes = model.minutes
    if not minutes:
        return None
    return with_minutes(Usage(), minutes, max(minute.begin for minute in minutes) + MINUTE_SECONDS)


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
