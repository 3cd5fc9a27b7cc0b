"""transformers' `generate` in one process, with a batch whose texts all begin and end together; no server.

Reads one JSON object from standard input, the batches and how long to run each, and writes one to standard
output. What model comes from the environment, as for the peers.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from bench.alone import run_alone
from bench.generation.prompts import SHORT, make_prompts
from bench.generation.rows import GenerationRow
from bench.generation.servers import TOKENS
from bench.rows import IN_PROCESS
from bench.servers import Job, environment

ONEDNN: Final = "oneDNN linear layers"
LAYERS: Final = ("", ONEDNN)


def measure(job: Job, batches: Sequence[int], seconds: float) -> list[GenerationRow]:
    """Generate in batches of each size for so long, with transformers' linear layers and with ours."""
    document = {"batches": list(batches), "seconds": seconds}
    rows = run_alone("bench.generation.static", variables=environment(job, port=0), document=document)
    return [
        GenerationRow(
            IN_PROCESS, job.dtype, batch, batch * TOKENS / each, each / TOKENS * 1000, variant=layers
        )
        for layers, batch, each in rows
    ]


def _run(batches: Sequence[int], seconds: float) -> Iterator[tuple[str, int, float]]:
    """Yield the layers, the size of the batch and the seconds that each took."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from serve_app.encoders.onednn import use_kernels

    folder, dtype = os.environ["BENCH_MODEL"], os.environ["BENCH_DTYPE"]
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    for layers in LAYERS:
        if layers == ONEDNN:
            use_kernels(model)
        for batch in batches:
            yield layers, batch, _seconds_of(model, tokenizer, batch, seconds)


def _seconds_of(model: Any, tokenizer: Any, batch: int, seconds: float) -> float:
    prompts = itertools.cycle(make_prompts(SHORT, 256))

    def generate() -> None:
        texts = list(itertools.islice(prompts, batch))
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        model.generate(**inputs, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS)

    generate()
    started, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - started < seconds:
        generate()
        done += 1
    return (time.perf_counter() - started) / done


def main() -> None:
    """Do what standard input says."""
    document = json.load(sys.stdin)
    json.dump(list(_run(document["batches"], document["seconds"])), sys.stdout)


if __name__ == "__main__":
    main()
