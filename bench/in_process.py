"""The limit: the same model in a loop, sorted by length in batches, no server and no waiting.

Reads one JSON object from standard input, a `Loop` with the texts, and writes one to standard output.
Each window of texts is what a server with that many clients could see at once.
"""

import itertools
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.alone import run_alone
from bench.servers import Job, environment
from bench.texts import sorted_batches
from endpoint_operator.load.timing import percentile

SEED: Final = 3


@dataclass(frozen=True)
class Loop:
    """How long to run which batches; `window` is how many texts are sorted together."""

    window: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Texts a second, and the time of a batch."""

    rps: float
    p50_ms: float
    p99_ms: float


def measure(job: Job, loops: Sequence[Loop], texts: Sequence[str]) -> list[Speed]:
    """Run the loops, one after the other, in a process of their own."""
    document = {"loops": [asdict(loop) for loop in loops], "texts": list(texts)}
    speeds = run_alone("bench.in_process", variables=environment(job, port=0), document=document)
    return [Speed(**speed) for speed in speeds]


def _run(model: Any, loop: Loop, texts: Sequence[str]) -> Speed:
    batches = sorted_batches([len(text) for text in texts], loop.window, loop.batch)
    # In no order, so that the time may be over before all have had their turn.
    random.Random(SEED).shuffle(batches)
    model([texts[at] for at in batches[0]])
    seconds: list[float] = []
    done = 0
    started = time.perf_counter()
    for batch in itertools.cycle(batches):
        begun = time.perf_counter()
        if begun - started > loop.seconds:
            break
        model([texts[at] for at in batch])
        seconds.append(time.perf_counter() - begun)
        done += len(batch)
    elapsed = time.perf_counter() - started
    return Speed(done / elapsed, percentile(seconds, 0.5) * 1000, percentile(seconds, 0.99) * 1000)


def main() -> None:
    """Do what standard input says."""
    document = json.load(sys.stdin)
    from bench.peers.model import Model

    model = Model()
    speeds = [_run(model, Loop(**loop), document["texts"]) for loop in document["loops"]]
    json.dump([asdict(speed) for speed in speeds], sys.stdout)


if __name__ == "__main__":
    main()
