"""BentoML: adaptive batching; start with `bentoml serve bentoml_server:Service`."""

from typing import Any

import bentoml
from model import MAX_BATCH, Model


@bentoml.service(workers=1, traffic={"timeout": 120, "max_concurrency": 1024})
class Service:
    """One model in one worker."""

    def __init__(self) -> None:
        self._model = Model()

    # Batches that are expected to take longer than the latency are refused with 503.
    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60000, route="/predict")
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self._model(texts)
