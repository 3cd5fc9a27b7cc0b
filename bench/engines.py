"""The model without a server, in one engine beside the other: `python -m bench.engines [--model NAME]`.

Prints milliseconds a text, alone and in batches, on all cores of the processor. All engines are made ready
first and then take turns, so that a machine whose speed changes changes for all.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any, Final

from rich.console import Console
from rich.table import Table

from bench.environments import PEERS, python_of
from bench.rows import FLOAT32, OURS
from bench.samples import MODELS, BenchModel
from bench.servers import Job, Machine, environment
from bench.texts import make_texts
from endpoint_operator.local.ray import detect_machine

# Each engine in the number formats that it has; all are compared with the first.
ENGINES: Final = (
    ("transformers", FLOAT32),
    ("torch.compile", FLOAT32),
    ("torch.compile, frozen", FLOAT32),
    ("ONNX Runtime", FLOAT32),
    ("OpenVINO", FLOAT32),
    (OURS, FLOAT32),
    ("transformers", "bfloat16"),
    ("OpenVINO", "bfloat16"),
    (OURS, "bfloat16"),
    ("ONNX Runtime", "int8"),
    (OURS, "int8"),
)
BATCH: Final = 16
ROUNDS: Final = 5
LONE_TEXTS: Final = 48
BATCHED_TEXTS: Final = 12 * BATCH


@dataclass
class Candidate:
    """An engine in a process of its own, and how it did so far."""

    name: str
    dtype: str
    process: "subprocess.Popen[str]"
    # What it printed, for when it fails.
    log: IO[str]
    seconds: float = 0.0
    scores: Sequence[Sequence[float]] = ()
    lone_ms: list[float] = field(default_factory=list)
    batched_ms: list[float] = field(default_factory=list)

    def make_ready(self) -> None:
        """Load the model and run everything once."""
        answer = self._ask(LONE_TEXTS, 1)
        self.seconds, self.scores = answer["seconds"], answer["scores"]
        self._ask(BATCHED_TEXTS, BATCH)

    def take_turn(self) -> None:
        """Measure once."""
        self.lone_ms.append(self._ask(LONE_TEXTS, 1)["ms"])
        self.batched_ms.append(self._ask(BATCHED_TEXTS, BATCH)["ms"])

    def _ask(self, count: int, batch: int) -> dict[str, Any]:
        """Let it run texts; raise RuntimeError if it ends instead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        asked = {"texts": make_texts("short", count), "batch": batch}
        with suppress(BrokenPipeError):
            print(json.dumps(asked), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"{self.name} in {self.dtype} ended: {self.log.read().strip()[-500:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("--model", choices=["distilbert", "sentiment"], default="distilbert")
    model = MODELS[parser.parse_args().model]()
    console = Console(width=None if os.isatty(1) else 150)
    ready: list[Candidate] = []
    with ExitStack() as stack:
        for name, dtype in ENGINES:
            candidate = stack.enter_context(started(name, dtype, model, console))
            try:
                candidate.make_ready()
            except RuntimeError as error:
                console.print(f"not measured: {error}", markup=False)
            else:
                ready.append(candidate)
        for _ in range(ROUNDS):
            for candidate in ready:
                candidate.take_turn()
    show(console, ready)


@contextmanager
def started(name: str, dtype: str, model: BenchModel, console: Console) -> Iterator[Candidate]:
    """Start an engine's process, which ends with the block; that of a peer gets its environment first."""
    cores = detect_machine().cpus
    python = sys.executable if name == OURS else str(python_of(PEERS / "engines.txt", console))
    variables = environment(Job(model, dtype, Machine(cores, "cpu")), port=0)
    variables["OMP_NUM_THREADS"] = str(cores)
    with (
        TemporaryFile("w+", encoding="utf-8") as log,
        # Leaving the block closes its input, which ends it.
        subprocess.Popen(
            [python, str(PEERS / "engine.py"), name],
            env=os.environ | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        ) as process,
    ):  # fmt: skip
        yield Candidate(name, dtype, process, log)


def show(console: Console, candidates: Sequence[Candidate]) -> None:
    """Print one row for each engine."""
    table = Table("engine", "dtype")
    headings = ("lone text, ms", f"batches of {BATCH}, ms a text", "ready after, s", "greatest difference")
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in candidates:
        table.add_row(
            each.name, each.dtype, f"{statistics.median(each.lone_ms):.1f}",
            f"{statistics.median(each.batched_ms):.1f}", f"{each.seconds:.1f}",
            f"{greatest_difference(each.scores, candidates[0].scores):.1e}",
        )  # fmt: skip
    console.print(table)


def greatest_difference(scores: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """Return by how much the probabilities of the same texts differ at most."""
    pairs = zip(scores, others, strict=True)
    return max(abs(one - other) for row, its in pairs for one, other in zip(row, its, strict=True))


if __name__ == "__main__":
    main()
