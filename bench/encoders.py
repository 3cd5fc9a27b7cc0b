"""Encoders of other architectures, ours beside transformers: `python -m bench.encoders [--models NAME…]`.

Both are in one process with the same threads, in float32, and take turns, so that a machine whose speed
changes changes for both. transformers gets the texts sorted by length in batches, as a careful program sends
them. Prints milliseconds a text and their ratio, and writes bench/results/encoders.json.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.__main__ import QUIET, describe
from bench.alone import run_alone
from bench.rows import FLOAT32
from bench.samples import ENCODERS, encoder
from bench.servers import Machine
from bench.texts import make_texts, sorted_batches
from endpoint_operator.local.ray import detect_machine

RESULTS: Final = Path(__file__).parent / "results" / "encoders.json"
KINDS: Final = ("short", "mixed")
TEXTS: Final = 64
ROUNDS: Final = 5


@dataclass(frozen=True)
class Measured:
    """One model with one kind of texts: medians of the rounds, and the median of the ratios in each."""

    model: str
    layers: int
    texts: str
    # How ours is served.
    step: str
    ours_ms: float
    transformers_ms: float
    ratio: float
    # Of the probabilities of the same text.
    greatest_difference: float


@dataclass(frozen=True)
class Waiting:
    """A text as it waits in the queue: its sequence, and its place among the texts."""

    sequence: Any
    place: int


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.encoders", description=__doc__)
    parser.add_argument("--models", nargs="*", choices=[*ENCODERS], default=[*ENCODERS])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    # What the command starts for each model.
    parser.add_argument("--alone", choices=[*ENCODERS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        # What libraries print must not mix with the answer.
        answer, sys.stdout = sys.stdout, sys.stderr
        json.dump([asdict(each) for each in measure(arguments.alone, arguments.rounds)], answer)
        return
    console = Console(width=None if os.isatty(1) else 150)
    machine = Machine(detect_machine().cpus, "cpu")
    facts = describe(machine)
    if facts["busy_before"] > QUIET:
        console.print(f"[yellow]others use {facts['busy_before']:.0%} of the processor[/yellow]")
    rows = [row for name in arguments.models for row in _in_process(name, arguments.rounds, machine)]
    show(console, rows)
    document = {"machine": facts, "dtype": FLOAT32, "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _in_process(name: str, rounds: int, machine: Machine) -> list[Measured]:
    """Measure in a process of its own, with the threads of a replica; raise RuntimeError if it fails."""
    variables = {"OMP_NUM_THREADS": str(machine.cores), "CUDA_VISIBLE_DEVICES": ""}
    arguments = ("--alone", name, "--rounds", str(rounds))
    return [Measured(**row) for row in run_alone("bench.encoders", *arguments, variables=variables)]


def measure(name: str, rounds: int) -> list[Measured]:
    """Return a row for each kind of texts."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from serve_app.tasks.text_classification import TextClassification

    folder = encoder(name).folder
    ours = TextClassification(folder, FLOAT32)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # For both, since they share this thread.
    ours.prepare_thread(exclusive=True)
    rows = []
    with torch.inference_mode():
        for kind in KINDS:
            texts = make_texts(kind, TEXTS)
            run_ours, run_theirs = _ours(ours, texts), _transformers(theirs, tokenizer, texts)
            difference = float((run_ours() - run_theirs()).abs().max())
            own, other = _in_turns(run_ours, run_theirs, rounds)
            rows.append(
                Measured(
                    name,
                    theirs.config.num_hidden_layers,
                    kind,
                    ours.description["proof"]["step"],
                    statistics.median(own),
                    statistics.median(other),
                    statistics.median(one / two for one, two in zip(other, own, strict=True)),
                    difference,
                )
            )
    return rows


def _ours(model: Any, texts: Sequence[str]) -> Callable[[], Any]:
    """Return what runs the texts in the batches of an endpoint with the defaults: (texts, labels)."""
    import torch

    from serve_app.contract import UserConfig
    from serve_app.engine.base import InputLimit, Progress
    from serve_app.engine.batch_planner import BatchLimits, plan_batches
    from serve_app.parameters import parse_parameters

    parameters, limit = parse_parameters(model.task, {}), InputLimit(model.max_tokens, truncate=True)
    queue = [Waiting(model.encode(text, parameters, limit)[0], at) for at, text in enumerate(texts)]
    defaults = UserConfig()
    limits = BatchLimits(
        defaults.max_batch_size,
        defaults.max_batch_tokens,
        max_wait_seconds=0,
        overhead_tokens=model.batch_overhead_tokens,
        padded=model.pads,
    )
    batches = plan_batches(queue, limits)

    def run() -> Any:
        found: list[Any] = [None] * len(texts)
        for batch in batches:
            outputs = model.forward([each.sequence for each in batch], Progress((), 0))
            for each, output in zip(batch, outputs, strict=True):
                found[each.place] = model.scores(output)
        return torch.stack(found)

    return run


def _transformers(model: Any, tokenizer: Any, texts: Sequence[str]) -> Callable[[], Any]:
    """Return what runs the texts sorted by length in batches of the same size, padded: (texts, labels)."""
    import torch

    from serve_app.contract import UserConfig

    lengths = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
    places = sorted_batches(lengths, len(texts), UserConfig().max_batch_size)
    batches = [tokenizer([texts[at] for at in batch], padding=True, return_tensors="pt") for batch in places]
    order = torch.tensor([at for batch in places for at in batch]).argsort()

    def run() -> Any:
        logits = [model(**batch).logits for batch in batches]
        return torch.cat(logits).softmax(-1)[order]

    return run


def _in_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int
) -> tuple[list[float], list[float]]:
    """Return milliseconds a text of both, one number for each round. They have run before."""
    measured: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        # Who is first has what the one before it has left in the processor's caches.
        for run in (ours, theirs) if number % 2 else (theirs, ours):
            started = time.perf_counter()
            run()
            measured[run].append((time.perf_counter() - started) * 1000 / TEXTS)
    return measured[ours], measured[theirs]


def show(console: Console, rows: Sequence[Measured]) -> None:
    """Print a row for each model and kind of texts."""
    table = Table("model", "layers", "texts", "ours in")
    for heading in ("ours, ms a text", "transformers", "ratio", "greatest difference"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.model, str(row.layers), row.texts, row.step, f"{row.ours_ms:.1f}",
            f"{row.transformers_ms:.1f}", f"{row.ratio:.2f}", f"{row.greatest_difference:.1e}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
