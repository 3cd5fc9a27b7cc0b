"""Measure ours beside other servers on this machine: `python -m bench [--quick]`.

Prints a table and the project's promises with what was measured, and writes bench/results/latest.json
and latest.svg. One server runs at a time, all with the same models, texts and load generator.
"""

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from rich.console import Console
from rich.table import Table

from bench import cold_start
from bench.claims import Claim, ColdStart, check
from bench.generation import claims as generation_claims
from bench.generation import rows as generation_rows
from bench.generation.measuring import GenerationBench
from bench.generation.servers import PEER_GENERATORS
from bench.generation.table import table as generation_table
from bench.measuring import Bench
from bench.picture import draw
from bench.rows import FLOAT32, FULL, IN_PROCESS, QUICK, Row, ratio
from bench.samples import CHAT
from bench.servers import ARTICLE, OURS, PEER_SERVERS, Machine
from endpoint_operator.local.ray import detect_machine

RESULTS: Final = Path(__file__).parent / "results"
PICTURE_CLIENTS: Final = 16
# Above this share of the processor, somebody else's work is in the numbers.
QUIET: Final = 0.1


def main() -> None:
    """Run the command line."""
    arguments = _arguments()
    console = Console(width=None if os.isatty(1) else 150)
    started = time.monotonic()
    machine = Machine(detect_machine().cpus, "cuda" if torch.cuda.is_available() else "cpu")
    facts = describe(machine)
    console.print(f"{facts['processor']}, {machine.cores} cores; models run on {facts['device']}")
    if facts["busy_before"] > QUIET:
        console.print(f"[yellow]others use {facts['busy_before']:.0%} of the processor[/yellow]")
    plans = QUICK if arguments.quick else FULL
    chosen = {name: plan for name, plan in plans.items() if name in arguments.models or not arguments.models}
    bench = Bench(machine, chosen, console, arguments.only)
    generation = GenerationBench(bench, generation_rows.QUICK if arguments.quick else generation_rows.FULL)
    cold = None
    try:
        bench.run()
        if not arguments.models or CHAT in arguments.models:
            generation.run()
        if not arguments.quick and not arguments.only:
            with bench.noting("starting"):
                cold = cold_start.measure(machine, console)
    finally:
        # What was measured before an interruption is worth keeping.
        claims = [*check(bench.rows, cold), *generation_claims.check(generation.rows)]
        facts |= {"minutes": round((time.monotonic() - started) / 60, 1), "quick": arguments.quick}
        console.print(generation_table(generation.rows))
        show(console, bench.rows, claims, bench.problems)
        write(facts, generation, claims, cold)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one model, short texts, under five minutes")
    generators = (each.server for each in PEER_GENERATORS)
    servers = (each.name for each in (OURS, ARTICLE, *PEER_SERVERS, *generators))
    parser.add_argument("--only", nargs="*", default=[], choices=[*dict.fromkeys((*servers, IN_PROCESS))])
    parser.add_argument("--models", nargs="*", default=[], choices=[*FULL, CHAT])
    return parser.parse_args()


def describe(machine: Machine) -> dict[str, Any]:
    """Return what the numbers depend on besides the code."""
    on_cuda = machine.device == "cuda"
    return {
        "processor": _processor(),
        "cores": machine.cores,
        "device": torch.cuda.get_device_name() if on_cuda else "cpu",
        "python": platform.python_version(),
        "busy_before": psutil.cpu_percent(interval=3) / 100,
        **{name: version(name) for name in ("torch", "transformers", "ray")},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    named = (
        re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    )
    return named[1] if named else platform.processor() or platform.machine()


def show(console: Console, rows: Sequence[Row], claims: Sequence[Claim], problems: Sequence[str]) -> None:
    """Print the rows, what could not be measured, and the promises."""
    table = Table("server", "model", "dtype", "texts", "load")
    for heading in ("requests/s", "p50 ms", "p99 ms", "failures", "client cores", "server cores", "of ours"):
        table.add_column(heading, justify="right")
    for row in rows:
        load = f"{row.clients} clients" if row.clients else f"{row.offered_rps:.1f}/s ({row.share:.0%})"
        named = " ".join(part for part in (row.server, row.variant, row.route) if part and part != "direct")
        compared = ratio(rows, row)
        table.add_row(
            named, row.model, row.dtype, row.texts, load, f"{row.rps:.1f}", f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}", str(row.failures), f"{row.client_cpu:.2f}", f"{row.server_cpu:.2f}",
            "" if compared is None else f"{compared:.2f}",
        )  # fmt: skip
    console.print(table)
    for problem in problems:
        console.print(f"not measured: {problem}", markup=False)
    for claim in claims:
        console.print(
            f"{claim.verdict:>14}  {claim.promise}: {claim.measured}", markup=False, highlight=False
        )


def write(
    facts: dict[str, Any], generation: GenerationBench, claims: Sequence[Claim], cold: ColdStart | None
) -> None:
    """Write the results and the picture."""
    bench = generation.bench
    RESULTS.mkdir(exist_ok=True)
    document = {
        "machine": facts,
        "rows": [{**asdict(row), "ratio_to_ours": ratio(bench.rows, row)} for row in bench.rows],
        "generation": [asdict(row) for row in generation.rows],
        "claims": [{**asdict(claim), "verdict": claim.verdict} for claim in claims],
        "cold_start": asdict(cold) if cold else None,
        "not_measured": bench.problems,
    }
    (RESULTS / "latest.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    on = f"{facts['processor']}, {facts['cores']} cores"
    heading = f"Requests a second, {PICTURE_CLIENTS} clients, {FLOAT32}: {on}"
    picture = draw(bench.rows, FLOAT32, PICTURE_CLIENTS, heading)
    (RESULTS / "latest.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
