"""The servers that generate, ours and its peers, and how each is asked for a stream of so many tokens."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench.environments import PEERS, python_of
from bench.generation.prompts import COMPLETIONS, members
from bench.generation.weights import gguf
from bench.rows import FLOAT32
from bench.samples import GENERATION
from bench.servers import OURS as OURS_SERVER
from bench.servers import Job, Server

BFLOAT16: Final = "bfloat16"
INT8: Final = "int8"
INT4: Final = "int4"
EQUAL: Final = (BFLOAT16, FLOAT32)
# Of each stream.
TOKENS: Final = 64
# SmolLM2's <|endoftext|> and <|im_end|>, which end a text.
END_TOKENS: Final = (0, 2)
# Where a member of the request would be refused.
_PLAIN: Final = {"model": None, "ignore_eos": None, "stream_options": None}


@dataclass(frozen=True)
class Generator:
    """A server in the number formats that it has, all with the same weights."""

    server: Server
    dtypes: tuple[str, ...]
    # How many streams it advances together; None if it is as many as are asked for.
    at_once: int | None = None


def _asking(more: Mapping[str, Any]) -> Callable[[str, str], Mapping[str, Any]]:
    return lambda model, prompt: members(COMPLETIONS, model, prompt, TOKENS, more)


def _transformers(*options: str) -> Callable[[Job, int, Path, Console], Sequence[str]]:
    def command(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
        tool = python_of(PEERS / "transformers.txt", console).with_name("transformers")
        return [
            str(tool), "serve", str(job.model.folder), "--device", job.machine.device, "--dtype", job.dtype,
            "--host", "127.0.0.1", "--port", str(port), *options,
        ]  # fmt: skip

    return command


def _llamacpp(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
    python = python_of(PEERS / "llamacpp.txt", console)
    # By default, it uses half of the cores, computes logits for the whole prompt, and ends a stream when
    # another one is asked for.
    options = {
        "model": gguf(job.dtype, console), "host": "127.0.0.1", "port": port, "n_ctx": 4096,
        "n_threads": job.machine.cores, "n_threads_batch": job.machine.cores,
        "logits_all": False, "interrupt_requests": False, "verbose": False,
    }  # fmt: skip
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [str(python), "-m", "llama_cpp.server", *given]


def _openvino(job: Job, port: int, folder: Path, console: Console) -> Sequence[str]:
    python = python_of(PEERS / "openvino.txt", console)
    # It reads no GGUF files in float32 or bfloat16.
    weights = gguf("float16" if job.dtype in EQUAL else job.dtype, console)
    return [str(python), str(PEERS / "openvino_server.py"), str(weights)]


OURS: Final = Generator(
    replace(OURS_SERVER, path=COMPLETIONS, body=_asking({}), tasks=(GENERATION,)), (*EQUAL, INT8)
)
_TRANSFORMERS: Final = Server(
    "transformers",
    _transformers(),
    COMPLETIONS,
    _asking({**_PLAIN, "generation_config": json.dumps({"min_new_tokens": TOKENS, "do_sample": False})}),
    (GENERATION,),
)
PEER_GENERATORS: Final = (
    Generator(
        replace(
            _TRANSFORMERS,
            # By default, its cache takes most of the memory: 14 of 24 GB.
            command=_transformers("--continuous-batching", "--cb-max-memory-percent", "0.2"),
            variant="continuous batching",
        ),
        EQUAL,
    ),
    Generator(_TRANSFORMERS, EQUAL, at_once=1),
    Generator(
        Server(
            "llama.cpp",
            _llamacpp,
            COMPLETIONS,
            _asking({**_PLAIN, "logit_bias": {str(token): -100 for token in END_TOKENS}}),
            (GENERATION,),
        ),
        (*EQUAL, INT8, INT4),
        at_once=1,
    ),
    Generator(
        Server("openvino", _openvino, COMPLETIONS, _asking({}), (GENERATION,)),
        (*EQUAL, INT8, INT4),
    ),
)
