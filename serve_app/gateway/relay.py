"""Send a request to a model's replica by Serve's handle; errors of Ray become errors for the client."""

import logging
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from serve_app.gateway.model_index import ModelIndex
from serve_app.http.errors import ModelNotReadyError, OverloadedError, Reply

logger = logging.getLogger("ray.serve")


class Relay:
    """Sends requests to replicas, with one Serve handle per model."""

    def __init__(self, index: ModelIndex) -> None:
        self._index = index
        self._handles: dict[str, Any] = {}

    async def send(self, name: str, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Return the reply of the model `name`; raise a ServingError if there is none."""
        await self._index.resolve(name)
        try:
            if name not in self._handles:
                self._handles[name] = serve.get_app_handle(name)
            reply: Reply = await self._handles[name].call.remote(verb, body, headers)
        except BackPressureError as error:
            raise OverloadedError(f"{name} has too many requests waiting") from error
        except (DeploymentUnavailableError, RayServeException, RayError) as error:
            # The replica died with the request, or the model was removed; a new handle tells which.
            self._handles.pop(name, None)
            logger.warning("%s did not answer: %s", name, error)
            raise ModelNotReadyError(f"{name} lost this request; send it again") from error
        return reply
