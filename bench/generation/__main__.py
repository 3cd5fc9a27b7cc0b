"""Measure the streams of one server that speaks OpenAI's protocol: `python -m bench.generation --url URL`.

First with 1, 8, 16 and 32 clients that each begin a stream when their last one has ended, then, with
`--rates`, with requests at random times whose prompts have 20 to 800 words.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from bench.generation.load import Load, Report, measure
from bench.generation.prompts import CHAT, COMPLETIONS, LONG, SHORT, body, make_prompts

PROMPTS = 512


def main() -> None:
    """Run the command line."""
    arguments = _arguments()
    console = Console(width=None if os.isatty(1) else 150)
    route = CHAT if arguments.chat else COMPLETIONS
    url = arguments.url.rstrip("/") + route
    more: dict[str, Any] = json.loads(arguments.body)
    bodies = {
        lengths: [
            body(route, arguments.model, prompt, arguments.tokens, more)
            for prompt in make_prompts(lengths, PROMPTS)
        ]
        for lengths in (SHORT, LONG)
    }
    # Says in the server's own words what is wrong with the request, if anything is.
    answer = httpx.post(url, content=bodies[SHORT][0], headers=_JSON, timeout=120, trust_env=False)
    if answer.status_code != 200:
        raise SystemExit(f"{url} answers {answer.status_code}: {answer.text[:500]}")
    times = {"warm_up_seconds": arguments.warm_up, "seconds": arguments.seconds}
    loads = [Load(url, streams, **times) for streams in arguments.streams]
    loads += [Load(url, rate=rate, **times) for rate in arguments.rates]
    rows = []
    for load in loads:
        rows.append((load, measure(load, bodies[SHORT if load.streams else LONG])))
        console.print(table(rows[-1:]))
    console.print(table(rows))
    if arguments.json:
        document = [{**asdict(load), **asdict(report)} for load, report in rows]
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


_JSON = {"content-type": "application/json"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.generation", description=__doc__)
    parser.add_argument("--url", required=True, help="where the server is, such as http://127.0.0.1:8000")
    parser.add_argument("--model", default="chat", help="the model's name in requests")
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8, 16, 32], help="of the closed loop")
    parser.add_argument("--rates", type=float, nargs="*", default=[], help="requests a second, open loop")
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    parser.add_argument("--warm-up", type=float, default=4.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured, of each load")
    parser.add_argument("--chat", action="store_true", help=f"ask at {CHAT} instead of {COMPLETIONS}")
    parser.add_argument("--body", default="{}", help="JSON members to add to requests; null takes one out")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args()


def table(rows: Sequence[tuple[Load, Report]]) -> Table:
    """Return what was measured, a row for each load."""
    shown = Table("load")
    for heading in ("tokens/s", "first p50 ms", "p90", "gap p50 ms", "p90", "max", "streams", "failures",
                    "tokens/event", "client cores"):  # fmt: skip
        shown.add_column(heading, justify="right")
    for load, report in rows:
        shown.add_row(
            f"{load.streams} streams" if load.streams else f"{load.rate:g}/s",
            f"{report.tokens_per_s:.1f}", f"{report.first_p50_ms:.0f}", f"{report.first_p90_ms:.0f}",
            f"{report.gap_p50_ms:.1f}", f"{report.gap_p90_ms:.1f}", f"{report.gap_max_ms:.0f}",
            str(report.streams), f"{report.failures} {report.problem}".strip(),
            f"{report.tokens_per_event:.2f}", f"{report.client_cpu:.2f}",
        )  # fmt: skip
    return shown


if __name__ == "__main__":
    main()
