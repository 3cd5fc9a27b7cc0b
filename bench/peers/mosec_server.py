"""mosec: a web layer in Rust that fills batches for worker processes."""

from typing import Any

from model import MAX_BATCH, Model
from mosec import Server, Worker


class Inference(Worker):
    """One model in one process."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model()

    def forward(self, data: list[dict[str, str]]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self._model([request["text"] for request in data])


if __name__ == "__main__":
    server = Server()
    # Milliseconds to wait for a full batch; the documentation's examples have 10, a lone client wants few.
    server.append_worker(Inference, num=1, max_batch_size=MAX_BATCH, max_wait_time=2, timeout=120)
    server.run()
