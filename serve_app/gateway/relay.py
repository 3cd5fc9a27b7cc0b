"""Send a request to a model's replica by Serve's handle; errors of Ray become errors for the client.

Serve's handle waits for a replica without an end, so the wait is bounded here.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
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
from serve_app.http.streaming import StreamedReply, error_event
from serve_app.replica.own_answers import note_relayed

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
        async with self._asked(name) as handle:
            response = handle.call.remote(verb, body, headers)
            reply: Reply = await self._answer(name, response, response)
        note_relayed()
        return reply

    async def stream(
        self, name: str, verb: str, body: bytes, headers: Mapping[str, str]
    ) -> Reply | StreamedReply:
        """Do so for a reply that may be streamed; the time limit is that of its head."""
        async with self._asked(name) as handle:
            response = handle.options(stream=True).stream.remote(verb, body, headers)
            head = await self._answer(name, response, anext(response))
        note_relayed()
        if isinstance(head, Reply):
            return head
        is_over = False

        async def rest() -> AsyncGenerator[bytes, None]:
            """Yield the pieces after the head; if the replica is lost, the last one says so."""
            nonlocal is_over
            try:
                async for chunk in response:
                    yield chunk
                is_over = True
            except (RayServeException, RayError) as error:
                is_over = True
                self._handles.pop(name, None)
                logger.warning("%s did not end its answer: %s", name, error)
                yield error_event(verb, _lost(name))

        async def close() -> None:
            if not is_over:
                response.cancel()

        return StreamedReply(rest(), close, head)

    @asynccontextmanager
    async def _asked(self, name: str) -> AsyncIterator[Any]:
        """Yield the handle of the model; make a ServingError of what goes wrong, and of too long a wait."""
        # A lost replica is replaced within seconds, as a rule.
        state = await self._index.resolve(name, or_recovers=True)
        try:
            async with asyncio.timeout(state.request_timeout_seconds):
                if name not in self._handles:
                    self._handles[name] = self._handle_of(name)
                yield self._handles[name]
        except TimeoutError as error:
            raise await self._timeout(state) from error
        except BackPressureError as error:
            raise OverloadedError(f"{name} has too many requests waiting") from error
        except (DeploymentUnavailableError, RayServeException, RayError) as error:
            # The replica died with the request, or the model was removed; a new handle tells which.
            self._handles.pop(name, None)
            logger.warning("%s did not answer: %s", name, error)
            raise _lost(name) from error

    async def _answer(self, name: str, response: Any, awaited: Awaitable[Any]) -> Any:
        """Await a part of `response`; give that up, with the cause, when no replica can have or get it."""
        answer = asyncio.ensure_future(awaited)
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=CHECK_SECONDS)
                if not answer.done():
                    await self._index.check_waiting(name)
            return answer.result()
        finally:
            if not answer.done():
                # Serve's handle would keep a request that nobody awaits any more in its queue.
                response.cancel()
                answer.cancel()

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


def _lost(name: str) -> ModelNotReadyError:
    return ModelNotReadyError(f"{name} lost this request; send it again")
