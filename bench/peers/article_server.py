"""Ray Serve as articles write it: a pipeline behind `@serve.batch`, a router in front, the default proxy.

Runs in the project's own environment. With BENCH_REPLICA_CPUS the replica gets that many cores instead
of Ray's default of one, which is what decides how many threads torch has.
"""

import os
import signal
import threading
from typing import Any

import ray
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from ray import serve

CPUS = os.environ.get("BENCH_REPLICA_CPUS")
OPTIONS: dict[str, Any] = {"num_cpus": int(CPUS)} if CPUS else {}

front = FastAPI()


class NamedText(BaseModel):
    """A text and the model that shall classify it."""

    model: str
    text: str


@serve.deployment(
    autoscaling_config={"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 5},
    max_ongoing_requests=20,
    graceful_shutdown_timeout_s=30,
    health_check_period_s=10,
    health_check_timeout_s=5,
)
class SentimentService:
    """One copy of the model."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        from transformers import pipeline

        self._pipeline = pipeline("sentiment-analysis", model=folder, dtype=dtype, device=device)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.1)
    async def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        """Answer a batch."""
        found = self._pipeline(texts, batch_size=len(texts), truncation=True)
        return [{"label": each["label"], "score": round(each["score"], 4)} for each in found]

    def check_health(self) -> None:
        """Raise when the model is gone."""
        if self._pipeline is None:
            raise RuntimeError("no model is loaded")


@serve.deployment
@serve.ingress(front)
class Router:
    """Sends each request to the model that it names."""

    def __init__(self, sentiment: Any) -> None:
        self._handles = {"sentiment": sentiment}

    @front.post("/predict")
    async def predict(self, request: NamedText) -> dict[str, Any]:
        """Answer one text by the model that is named."""
        if request.model not in self._handles:
            raise HTTPException(404, f"no model is named {request.model}")
        answer: dict[str, Any] = await self._handles[request.model].classify.remote(request.text)
        return answer


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    device = os.environ["BENCH_DEVICE"]
    if device == "cuda":
        OPTIONS["num_gpus"] = 1
    # Ray only admits by this number: the router needs a place beside a model on all cores.
    settings = {
        "num_cpus": (os.cpu_count() or 1) + 2,
        "object_store_memory": 128 * 2**20,
        "log_to_driver": False,
    }
    ray.init(address="local", include_dashboard=False, **settings)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    model = SentimentService.options(ray_actor_options=OPTIONS).bind(
        os.environ["BENCH_MODEL"], os.environ["BENCH_DTYPE"], device
    )
    serve.run(Router.bind(model), name="article")
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
