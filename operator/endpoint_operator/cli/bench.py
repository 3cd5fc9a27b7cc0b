"""`modelendpoint bench`: what an endpoint answers a second, and how long an answer takes.

A closed loop: each client sends a request, waits for the answer, and sends the next. So there are never
more requests in the service than clients.
"""

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from endpoint_operator.cli.display import example
from endpoint_operator.cli.inputs import fail, messages
from endpoint_operator.cli.model_client import (
    DEFAULT_URL,
    ModelClient,
    Parameters,
    Url,
    key_headers,
    task_parameters,
)
from endpoint_operator.load.closed import Sender, send_until
from endpoint_operator.load.connections import Connections
from endpoint_operator.load.timing import Summary, summarize
from serve_app.contract import Task

MOST_CLIENTS: Final = 64
MOST_LEVELS: Final = 6
# A request that takes longer has failed.
PATIENCE_SECONDS: Final = 60.0
# The share of each level that is not measured: connections open, and batches fill.
_WARM_UP: Final = 0.1
# With it, the table has less than 80 columns.
_BAR: Final = 12


@dataclass(frozen=True)
class Level:
    """What a number of clients saw; `problems` counts what was no 200, by status or "no answer"."""

    clients: int
    summary: Summary
    problems: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        numbers = {
            key: None if math.isnan(value) else round(value, 3) for key, value in asdict(self.summary).items()
        }
        renamed = {"requests_per_second": numbers.pop("rps"), "errors": numbers.pop("failures")}
        return {"clients": self.clients, **renamed, **numbers, "problems": dict(self.problems)}


def bench(
    name: Annotated[str, typer.Argument(help="Name of the endpoint.")],
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Time for all measurements.")] = 20.0,
    clients: Annotated[str, typer.Option(help="How many clients at once, one measurement each.")] = "1,4,16",
    text: Annotated[
        list[str] | None, typer.Option(help="Text to send; may be repeated. Without it, an example.")
    ] = None,
    parameters: Parameters = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Measure a served model: requests per second, latencies and errors, by the number of clients."""
    numbers = _numbers(clients)
    client = ModelClient(url, name)
    requests = _requests(client, text or [], task_parameters(parameters or []))
    for request in requests:
        # It fails here, with the service's sentence, and not a thousand times.
        client.predict(request)
    levels = []
    for number in numbers:
        messages.say(f"{number} client{'s' if number > 1 else ''}, {seconds / len(numbers):.1f} s")
        levels.append(measure(client.predict_address, requests, number, seconds / len(numbers)))
    if as_json:
        document = {"model": name, "url": url, "levels": [level.to_json() for level in levels]}
        typer.echo(json.dumps(document))
    else:
        _show(levels)


def _numbers(clients: str) -> list[int]:
    words = clients.split(",")
    good = all(word.isdecimal() and 1 <= int(word) <= MOST_CLIENTS for word in words)
    if not good or len(words) > MOST_LEVELS:
        raise typer.BadParameter(
            f"got {clients!r}; must be up to {MOST_LEVELS} numbers from 1 to {MOST_CLIENTS}, as in 1,4,16",
            param_hint="--clients",
        )
    return [int(word) for word in words]


def _requests(
    client: ModelClient, texts: Sequence[str], parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the bodies to send in turn: of `texts`, or the example of the model's task."""
    if texts:
        return [{"text": text, "parameters": parameters} for text in texts]
    task = client.task()
    if task not in set(Task):
        raise fail(f"{client.name} does not tell a task that is known here, so give a --text")
    request = dict(example(Task(task)))
    return [{**request, "parameters": {**request.get("parameters", {}), **parameters}}]


def measure(address: str, requests: Sequence[Mapping[str, Any]], clients: int, seconds: float) -> Level:
    """Send `requests` in turn to `address` for `seconds`, by clients that each wait for their answer."""
    return asyncio.run(_measure(address, [json.dumps(each).encode() for each in requests], clients, seconds))


async def _measure(address: str, contents: Sequence[bytes], clients: int, seconds: float) -> Level:
    connections = Connections(address, PATIENCE_SECONDS, clients, key_headers())
    sender = Sender(connections, contents)
    begun = time.perf_counter()
    await send_until(sender, clients, begun + seconds)
    connections.close()
    summary = summarize(sender.answered, begun + _WARM_UP * seconds, begun + seconds)
    problems = {
        str(status or "no answer"): count for status, count in sender.statuses.items() if status != 200
    }
    return Level(clients, summary, problems)


def _show(levels: Sequence[Level]) -> None:
    """Print a row for each level with a bar for its rate and one for its latencies."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ("CLIENTS", "REQ/S", "", "P50 MS", "P90 MS", "P99 MS", "", "ERRORS")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place in (2, 6) else "right", no_wrap=True)
    fastest = max(level.summary.rps for level in levels)
    slowest = max((level.summary.p99_ms for level in levels if level.summary.p99_ms > 0), default=0.0)
    blocks = "█▒░" if console.encoding.lower().startswith("utf") else "#+."
    for level in levels:
        seen = level.summary
        times = (seen.p50_ms, seen.p90_ms, seen.p99_ms)
        shown = ("-" if math.isnan(value) else f"{value:.1f}" for value in times)
        rate = bar([seen.rps], fastest, blocks)
        table.add_row(
            *(str(level.clients), f"{seen.rps:.1f}", rate, *shown, bar(times, slowest, blocks)),
            str(seen.failures),
        )
    console.print(table)
    console.print(f"{blocks[0]} up to P50, {blocks[1]} up to P90, {blocks[2]} up to P99", style="dim")
    problems = [f"{level.clients} clients: {level.problems}" for level in levels if level.problems]
    for problem in problems:
        messages.complain(f"not answered with 200, {problem}")


def bar(values: Sequence[float], most: float, blocks: str) -> str:
    """Return a bar of at most _BAR characters: `values` rise, and each has a block of its own."""
    if not most or any(map(math.isnan, values)):
        return ""
    ends = [round(_BAR * value / most) for value in values]
    starts = [0, *ends[:-1]]
    return "".join(block * (end - start) for block, start, end in zip(blocks, starts, ends, strict=False))
