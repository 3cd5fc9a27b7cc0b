"""What keys, limits and metrics cost, and what one key's load does to another: `python -m bench.access`.

Two of our servers run side by side, one with keys, limits and metrics and one without, and are asked in turn
in short windows, so that what else the machine does meets both. Writes bench/results/access.json.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from bench.load import PATIENCE_SECONDS
from bench.samples import sample
from bench.servers import Job, Machine, process, run_command, wait_for_answer, write_manifest
from bench.texts import make_texts
from endpoint_operator.load.closed import Sender, send_until
from endpoint_operator.load.connections import Connections
from endpoint_operator.load.timing import summarize
from endpoint_operator.local.ports import free_port
from endpoint_operator.local.ray import detect_machine

RESULTS: Final = Path(__file__).parent / "results" / "access.json"
MODEL: Final = "sentiment"
KEYS: Final = {"noisy": "sk-noisy", "quiet": "sk-quiet"}
CLIENTS: Final = (1, 64)
NOISY_CONNECTIONS: Final = 300
WARM_UP_SECONDS: Final = 1.0
# Limits that no request meets, so that they are counted and nothing is refused.
LIMITS: Final = {"requestsPerMinute": 1_000_000, "tokensPerMinute": 1_000_000_000, "requestsAtOnce": 100_000}
# Switches our metrics off, which nobody else should need to.
WITHOUT_METRICS: Final = {"MODEL_ENDPOINTS_METRICS": "off"}


@dataclass(frozen=True)
class Service:
    """One of our servers, and the headers with which it is asked."""

    url: str
    headers: dict[str, str]


@contextmanager
def serving(job: Job, *, access: bool) -> Iterator[Service]:
    """Serve the model with or without keys, limits and metrics."""
    with TemporaryDirectory(prefix="bench-") as name:
        folder, port = Path(name), free_port()
        manifests = folder / "manifests"
        manifests.mkdir()
        write_manifest(manifests, MODEL, job)
        command = run_command(manifests, port, job.model.folder.parent)
        if access:
            path = manifests / f"{MODEL}.yaml"
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            document["spec"]["limits"]["perKey"] = LIMITS
            document["spec"]["access"] = {"allow": [*KEYS]}
            path.write_text(yaml.safe_dump(document), encoding="utf-8")
            keys = folder / "keys.yaml"
            keys.write_text(yaml.safe_dump(KEYS), encoding="utf-8")
            command += ["--keys", str(keys)]
        with process(command, {} if access else WITHOUT_METRICS, folder / "log") as started:
            url = f"http://127.0.0.1:{port}/v2/models/{MODEL}/predict"
            service = Service(url, bearer("noisy") if access else {})
            wait_for_answer(service.url, json.dumps({"text": "a"}), started, folder / "log", service.headers)
            yield service


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


async def window(
    service: Service, clients: int, seconds: float, bodies: Sequence[bytes]
) -> tuple[float, float]:
    """Return the requests a second and the median of the latency in milliseconds; raise if one failed."""
    connections = Connections(service.url, PATIENCE_SECONDS, clients, service.headers)
    sender = Sender(connections, bodies)
    begun = time.perf_counter() + WARM_UP_SECONDS
    await send_until(sender, clients, begun + seconds)
    connections.close()
    if set(sender.statuses) != {200}:
        raise RuntimeError(f"{service.url} answered {dict(sender.statuses)}")
    seen = summarize(sender.answered, begun, begun + seconds)
    return seen.rps, seen.p50_ms


def cost(
    plain: Service, full: Service, bodies: Sequence[bytes], windows: int, seconds: float
) -> list[dict[str, Any]]:
    """Ask both in turn; return, for each number of clients, the medians of all windows and their ratio."""
    rows = []
    for clients in CLIENTS:
        measured: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
        for number in range(windows):
            pair = [("without", plain), ("with", full)]
            # Who is first has what the one before it has left in the processor's caches.
            for name, service in pair if number % 2 else reversed(pair):
                measured[name].append(asyncio.run(window(service, clients, seconds, bodies)))
        pairs = list(zip(measured["with"], measured["without"], strict=True))
        rows.append(
            {
                "clients": clients,
                **{
                    f"rps_{name}": statistics.median(rps for rps, _ in each)
                    for name, each in measured.items()
                },
                **{
                    f"p50_ms_{name}": statistics.median(ms for _, ms in each)
                    for name, each in measured.items()
                },
                "rps_ratio": statistics.median(own[0] / other[0] for own, other in pairs),
                "p50_ms_more": statistics.median(own[1] - other[1] for own, other in pairs),
            }
        )
    return rows


async def beside(
    service: Service, bodies: Sequence[bytes], seconds: float, connections: int
) -> dict[str, float]:
    """Return the latencies of a key that asks once a second beside so many connections of another."""
    noisy = Connections(service.url, PATIENCE_SECONDS, max(1, connections), bearer("noisy"))
    quiet = Connections(service.url, PATIENCE_SECONDS, 8, bearer("quiet"))
    loud, own = Sender(noisy, bodies), Sender(quiet, bodies)
    end = time.perf_counter() + seconds
    load = asyncio.create_task(send_until(loud, connections, end)) if connections else None
    await asyncio.sleep(WARM_UP_SECONDS)
    async with asyncio.TaskGroup() as group:
        while (now := time.perf_counter()) < end:
            group.create_task(own.send(now))
            await asyncio.sleep(1.0)
    if load is not None:
        await load
    for each in (noisy, quiet):
        each.close()
    seen = summarize(own.answered, 0.0, end)
    return {
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "failed": float(seen.failures),
        "noisy_rps": loud.statuses[200] / seconds,
        "noisy_refused": float(loud.statuses[429]),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.access", description=__doc__)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--beside-seconds", type=float, default=100.0)
    arguments = parser.parse_args()
    console = Console(width=150)
    machine = Machine(detect_machine().cpus, "cpu")
    job = Job(sample(MODEL), "auto", machine)
    bodies = [json.dumps({"text": text}).encode() for text in make_texts("short", 512)]
    busy = psutil.cpu_percent(interval=3) / 100
    with ExitStack() as stack:
        plain = stack.enter_context(serving(job, access=False))
        full = stack.enter_context(serving(job, access=True))
        rows = cost(plain, full, bodies, arguments.windows, arguments.seconds)
        lone, crowded = (
            asyncio.run(beside(full, bodies, arguments.beside_seconds, connections))
            for connections in (0, NOISY_CONNECTIONS)
        )
    document = {"busy_before": busy, "cost": rows, "lone": lone, "beside_300_connections": crowded}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    show(console, document)


def show(console: Console, document: dict[str, Any]) -> None:
    """Print what was measured."""
    table = Table("clients", "requests/s without", "with", "ratio", "p50 ms without", "with", "more")
    for row in document["cost"]:
        numbers = (
            f"{row['rps_without']:.0f}", f"{row['rps_with']:.0f}", f"{row['rps_ratio']:.3f}",
            f"{row['p50_ms_without']:.2f}", f"{row['p50_ms_with']:.2f}", f"{row['p50_ms_more']:+.2f}",
        )  # fmt: skip
        table.add_row(str(row["clients"]), *numbers)
    console.print(table)
    for what in ("lone", "beside_300_connections"):
        console.print(what, {name: round(value, 2) for name, value in document[what].items()})


if __name__ == "__main__":
    main()
