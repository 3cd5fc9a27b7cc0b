"""Measure the streams of one server that speaks OpenAI's protocol: `python -m bench.generation --url URL`.

First with 1, 8, 16 and 32 clients that each begin a stream when their last one has ended, then, with
`--rates`, with requests at random times whose prompts have 20 to 800 words.
"""

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from bench.generation.load import Load, measure, row_of
from bench.generation.prompts import CHAT, COMPLETIONS, LONG, SHORT, make_prompts, members
from bench.generation.table import table

PROMPTS: Final = 512
JSON: Final = {"content-type": "application/json"}


def main() -> None:
    """Run the command line."""
    arguments = _arguments()
    console = Console(width=None if os.isatty(1) else 150)
    route = CHAT if arguments.chat else COMPLETIONS
    url = arguments.url.rstrip("/") + route
    more: dict[str, Any] = json.loads(arguments.body)
    bodies = {
        lengths: [
            json.dumps(members(route, arguments.model, prompt, arguments.tokens, more))
            for prompt in make_prompts(lengths, PROMPTS)
        ]
        for lengths in (SHORT, LONG)
    }
    # Says in the server's own words what is wrong with the request, if anything is.
    answer = httpx.post(url, content=bodies[SHORT][0], headers=JSON, timeout=120, trust_env=False)
    if answer.status_code != 200:
        raise SystemExit(f"{url} answers {answer.status_code}: {answer.text[:500]}")
    plain = Load(url, warm_up_seconds=arguments.warm_up, seconds=arguments.seconds)
    loads = [replace(plain, streams=streams) for streams in arguments.streams]
    loads += [replace(plain, rate=rate) for rate in arguments.rates]
    rows = []
    for load in loads:
        report = measure(load, bodies[LONG if load.rate else SHORT])
        rows.append(row_of(arguments.name or arguments.model, arguments.dtype, load, report))
        console.print(f"{rows[-1].load}: {rows[-1].tokens_per_s:.1f} tokens/s")
    console.print(table(rows))
    if arguments.json:
        document = [asdict(row) for row in rows]
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


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
    parser.add_argument("--name", default="", help="the server's, in the table")
    parser.add_argument("--dtype", default="", help="its number format, in the table")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
