"""OpenVINO GenAI's continuous batching behind a plain FastAPI app: /v1/completions, streamed.

The first argument is the GGUF file. The rest comes from the environment: BENCH_MODEL is the folder with the
tokenizer, BENCH_DTYPE the number format of the weights.
"""

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

# Those of int8 and int4 weights are OpenVINO's own choice.
HINTS = {"float32": "f32", "bfloat16": "bf16"}
CACHE_GIB = 2
# OpenVINO's own default.
MOST_STREAMS = 256


class Completion(BaseModel):
    """What is read of a request."""

    prompt: str
    max_tokens: int = 64
    ignore_eos: bool = False


class Engine:
    """The pipeline with the thread that advances it; each step adds a token to every stream."""

    def __init__(self) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GIB
        scheduler.max_num_seqs = MOST_STREAMS
        scheduler.enable_prefix_caching = False
        hint = HINTS.get(os.environ["BENCH_DTYPE"])
        properties = {"INFERENCE_PRECISION_HINT": hint} if hint else {}
        self._pipeline = genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU", properties)
        self._streams: dict[int, tuple[Any, asyncio.Queue[list[int] | None]]] = {}
        self._count = 0
        self._wanted = threading.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, daemon=True).start()

    async def generate(self, prompt: list[int], most: int, *, ignore_eos: bool) -> AsyncIterator[list[int]]:
        """Yield new tokens as they come."""
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = most, ignore_eos, False
        self._count += 1
        number, queue = self._count, asyncio.Queue[list[int] | None]()
        tokens = openvino.Tensor(np.array([prompt], dtype=np.int64))
        self._streams[number] = (self._pipeline.add_request(number, tokens, config), queue)
        self._wanted.set()
        while (new := await queue.get()) is not None:
            yield new

    def _run(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
                self._hand_out()
            self._hand_out()

    def _hand_out(self) -> None:
        for number, (handle, queue) in list(self._streams.items()):
            if not handle.can_read():
                continue
            (output,) = handle.read().values()
            self._loop.call_soon_threadsafe(queue.put_nowait, list(output.generated_ids))
            if output.finish_reason != genai.GenerationFinishReason.NONE:
                del self._streams[number]
                self._loop.call_soon_threadsafe(queue.put_nowait, None)


app = FastAPI()
tokenizer = Tokenizer.from_file(str(Path(os.environ["BENCH_MODEL"]) / "tokenizer.json"))
engines: list[Engine] = []


@app.post("/v1/completions")
async def complete(request: Completion) -> StreamingResponse:
    """Stream one answer."""
    if not engines:
        engines.append(Engine())
    return StreamingResponse(_events(engines[0], request), media_type="text/event-stream")


async def _events(engine: Engine, request: Completion) -> AsyncIterator[str]:
    prompt = tokenizer.encode(request.prompt).ids
    words = DecodeStream(skip_special_tokens=True)
    count = 0
    async for new in engine.generate(prompt, request.max_tokens, ignore_eos=request.ignore_eos):
        count += len(new)
        text = "".join(words.step(tokenizer, token) or "" for token in new)
        yield _event(choices=[{"index": 0, "text": text, "finish_reason": None}])
    finish = "length" if count >= request.max_tokens else "stop"
    yield _event(choices=[{"index": 0, "text": "", "finish_reason": finish}])
    usage = {"prompt_tokens": len(prompt), "completion_tokens": count, "total_tokens": len(prompt) + count}
    yield _event(choices=[], usage=usage)
    yield "data: [DONE]\n\n"


def _event(**members: Any) -> str:
    return f"data: {json.dumps({'object': 'text_completion', 'model': 'bench', **members})}\n\n"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), log_level="warning")
