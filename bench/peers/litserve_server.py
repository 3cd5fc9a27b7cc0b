"""LitServe: dynamic batching that takes what waits as soon as the worker is free."""

from typing import Any

import litserve
from model import DEVICE, MAX_BATCH, PORT, Model


class Api(litserve.LitAPI):
    """One model in one worker."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self._model = Model()

    def decode_request(self, request: dict[str, str]) -> str:
        """Return the text of a request."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """Return the texts as they are: the tokenizer makes the tensor."""
        return list(inputs)

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Answer a batch."""
        return self._model(texts)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers one by one."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, which is JSON-ready."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=MAX_BATCH, batch_timeout=0.0),
        accelerator=DEVICE,
        devices=1,
        workers_per_device=1,
        fast_queue=True,
        timeout=120,
    )
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
