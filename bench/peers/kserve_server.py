"""KServe's Python server; it has no batching of its own (that is a separate agent on a cluster)."""

from typing import Any

import kserve
from model import PORT, Model


class Service(kserve.Model):
    """One model, called once a request."""

    def __init__(self) -> None:
        super().__init__("bench")
        self._model = Model()
        self.ready = True

    def predict(self, payload: dict[str, Any], headers: Any = None, response_headers: Any = None) -> Any:
        """Answer the instances of one request."""
        return {"predictions": self._model(payload["instances"])}


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=PORT, enable_grpc=False, workers=1, access_log_format="")
    server.start([Service()])
