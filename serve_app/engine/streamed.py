"""One continuation that is generated while its client reads it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack

from serve_app.engine.base import TaskModel
from serve_app.engine.continuous.choice import Choice
from serve_app.engine.continuous.continuation import Continuation, Growth, StreamedRequest
from serve_app.engine.generation import GeneratedToken, Part, TokenScore
from serve_app.http.errors import ModelFailedError, RequestTimeoutError, ServingError

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class StreamedGeneration:
    """See `generation.Generation`. `held` is what the request holds of the replica until its end.

    The first part comes within `timeout` seconds, or RequestTimeoutError.
    """

    def __init__(
        self,
        request: StreamedRequest,
        continuation: Continuation,
        model: TaskModel,
        timeout: float,
        held: ExitStack,
    ) -> None:
        self.prompt_tokens = continuation.length
        self.cached_tokens = 0
        self.generated_tokens = 0
        self._request = request
        self._model = model
        self._timeout = timeout
        self._held = held
        self._closed = False
        self._record = request.record
        # A client that does not read holds nothing once its text is done.
        request.answer.add_done_callback(lambda _: held.close())

    async def __aiter__(self) -> AsyncIterator[Part]:
        try:
            while True:
                growth = await self._next()
                if growth is None or self._closed:
                    return
                if isinstance(growth, ServingError):
                    raise growth
                if isinstance(growth, Exception):
                    logger.error("the model failed on a sequence", exc_info=growth)
                    raise ModelFailedError from growth
                self.generated_tokens += 1
                if self._record is not None:
                    self._record.output_tokens += 1
                self.cached_tokens = growth.known
                yield Part(growth.text, (self._token(growth.choice),), growth.reason)
                if growth.reason is not None:
                    return
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Give up what is not generated yet; the place is free at the next step, and iterating ends."""
        self._closed = True
        self._request.answer.cancel()
        self._request.growth.put_nowait(None)
        self._held.close()

    async def _next(self) -> Growth | Exception | None:
        seconds = None if self.generated_tokens else self._timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._request.growth.get()
        except TimeoutError as error:
            raise RequestTimeoutError(f"no first token within {self._timeout:g} seconds") from error

    def _token(self, choice: Choice) -> GeneratedToken:
        top = tuple(TokenScore(token, self._model.token_text(token), score) for token, score in choice.top)
        return GeneratedToken(choice.token, self._model.token_text(choice.token), choice.logprob, top)
