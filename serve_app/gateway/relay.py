"""Send a request to a model's replica by Serve's handle; errors of Ray become errors for the client.

Serve's handle waits for a replica without an end, so the wait is bounded here.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from serve_app.gateway.model_index import ModelIndex, ModelState
from serve_app.http.errors import (
    ModelNotReadyError,
    OverloadedError,
    Reply,
    RequestTimeoutError,
    ServingError,
)

# How often it is looked whether the model of a waiting request can still answer.
CHECK_SECONDS: Final = 1.0

logger = logging.getLogger("ray.serve")


class Relay:
    """Sends requests to replicas, with one Serve handle per model."""

    def __init__(self, index: ModelIndex, handle_of: Callable[[str], Any] = serve.get_app_handle) -> None:
        self._index = index
        self._handle_of = handle_of
        self._handles: dict[str, Any] = {}

    async def send(self, name: str, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Return the reply of the model `name`; raise a ServingError if there is none in time."""
        # A lost replica is replaced within seconds, as a rule.
        state = await self._index.resolve(name, or_recovers=True)
        try:
            async with asyncio.timeout(state.request_timeout_seconds):
                if name not in self._handles:
                    self._handles[name] = self._handle_of(name)
                return await self._answer(name, self._handles[name].call.remote(verb, body, headers))
        except TimeoutError as error:
            raise await self._timeout(state) from error
        except BackPressureError as error:
            raise OverloadedError(f"{name} has too many requests waiting") from error
        except (DeploymentUnavailableError, RayServeException, RayError) as error:
            # The replica died with the request, or the model was removed; a new handle tells which.
            self._handles.pop(name, None)
            logger.warning("%s did not answer: %s", name, error)
            raise ModelNotReadyError(f"{name} lost this request; send it again") from error

    async def _answer(self, name: str, response: Any) -> Reply:
        """Await `response`; give it up, with the cause, when no replica can have it or get it any more."""
        answer = asyncio.ensure_future(response)
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=CHECK_SECONDS)
                if not answer.done():
                    await self._index.check_waiting(name)
            reply: Reply = answer.result()
        finally:
            if not answer.done():
                # Serve's handle would keep a request that nobody awaits any more in its queue.
                response.cancel()
                answer.cancel()
        return reply

    async def _timeout(self, before: ModelState) -> ServingError:
        """Return the error of a request that has not been answered in time."""
        seconds = before.request_timeout_seconds
        try:
            now = await self._index.resolve(before.name, or_recovers=True)
        except ServingError as error:
            return error
        if now.replicas:
            return RequestTimeoutError(f"no answer within {seconds:g} seconds")
        because = f": {now.reason}" if now.reason else ""
        return ModelNotReadyError(
            f"{now.name} had no replica within {seconds:g} seconds{because}", state=now.status
        )
