"""FastAPI and uvicorn with a transformers pipeline, in a plain `def` as FastAPI wants blocking code."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from anyio import to_thread
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

classify = pipeline(
    os.environ["BENCH_TASK"],
    model=os.environ["BENCH_MODEL"],
    dtype=os.environ["BENCH_DTYPE"],
    device=os.environ["BENCH_DEVICE"],
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run one request at a time: torch uses all cores for it, and 40 threads would fight for them."""
    to_thread.current_default_thread_limiter().total_tokens = 1
    yield


class Request(BaseModel):
    """A text to classify."""

    text: str


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(request: Request) -> dict[str, Any]:
    """Return the best label."""
    answer: dict[str, Any] = classify(request.text, truncation=True)[0]
    return answer


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), access_log=False, log_level="warning"
    )
