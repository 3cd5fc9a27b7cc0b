"""The engine of models that run in batches: acquire a slot, encode, run in a batch, decode.

It knows neither Ray nor torch, and of HTTP only the errors. Generation runs here too: a batch of texts with
the same parameters is one call of `generate`, and lasts as long as its longest member.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from serve_app.contract import MAX_TEXTS_PER_REQUEST, ModelArgs, UserConfig
from serve_app.engine.base import EncodedSequence, Engine, InputLimit, Prediction, TaskModel
from serve_app.engine.batch_planner import BatchLimits
from serve_app.engine.batcher import Batcher
from serve_app.engine.streams import Streams
from serve_app.http.errors import (
    InvalidInputError,
    ModelFailedError,
    OverloadedError,
    RequestTimeoutError,
    ServingError,
)
from serve_app.parameters import InvalidParameterError, TaskParameters, parse_parameters

# A batch may take longer than a short request timeout, and the model is not stuck because of that.
SHORTEST_STUCK_SECONDS: Final = 30.0

Result = TypeVar("Result")

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class StuckModelError(Exception):
    """The forward pass has made no progress for longer than any client waits."""


class BatchEngine(Engine):
    """One model with its batcher and its limits.

    Encoding and decoding run in one thread of their own, because not every tokenizer is thread-safe and the
    event loop must not block. Short texts are encoded on the event loop: on a busy CPU, each context switch
    to another thread waits for its turn.
    """

    def __init__(self, args: ModelArgs, model: TaskModel, user_config: UserConfig) -> None:
        self.args = args
        self.model = model
        self.cold_start: Mapping[str, float] = {}
        self._user_config = user_config
        streams = Streams(model.batches_at_once, model.prepare_thread)
        self._batcher = Batcher(model.forward, _batch_limits(user_config, model), streams)
        self._text_thread = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._requests = 0

    @property
    def input_limit(self) -> InputLimit:
        limit = min(self._user_config.max_input_tokens, self.model.max_tokens)
        return InputLimit(limit, self._user_config.truncate_input)

    def reconfigure(self, user_config: UserConfig) -> None:
        """Apply new settings; requests that are already inside keep their limits."""
        self._user_config = user_config
        self._batcher.limits = _batch_limits(user_config, self.model)

    async def predict(
        self, texts: Sequence[str], overrides: Mapping[str, Any] | None = None
    ) -> list[Prediction]:
        _require_texts(texts)
        try:
            parameters = parse_parameters(self.args.task, self._user_config.parameters, overrides)
        except InvalidParameterError as error:
            raise InvalidInputError(str(error)) from error
        seconds = self._user_config.request_timeout_seconds
        with self._acquire_slot():
            try:
                async with asyncio.timeout(seconds):
                    return await self._answer(texts, parameters, self.input_limit)
            except TimeoutError as error:
                raise RequestTimeoutError(f"no answer within {seconds:g} seconds") from error

    async def check_health(self) -> None:
        """Run the model on a tiny text, unless it is busy and making progress, which is healthy too.

        Raises StuckModelError if the running batch makes no progress, or what the model raised.
        """
        stuck = self._batcher.seconds_without_progress()
        if stuck > max(self._user_config.request_timeout_seconds, SHORTEST_STUCK_SECONDS):
            raise StuckModelError(f"the model has been running one batch for {stuck:.0f} seconds")
        if not self._batcher.busy:
            await self.warm_up()

    async def warm_up(self) -> None:
        """Answer the task's tiny request, without the parameters and limits of the endpoint."""
        parameters = parse_parameters(self.args.task, self.model.warmup_parameters)
        limit = InputLimit(self.model.max_tokens, truncate=True)
        await self._answer([self.model.warmup_text], parameters, limit)

    async def close(self) -> None:
        """Stop the threads."""
        await self._batcher.close()
        self._text_thread.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _acquire_slot(self) -> Iterator[None]:
        limit = self._user_config.max_requests
        if self._requests >= limit:
            raise OverloadedError(f"{self._requests} requests are in this replica, which takes {limit}")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def _answer(
        self, texts: Sequence[str], parameters: TaskParameters, limit: InputLimit
    ) -> list[Prediction]:
        encoded = await self._with_texts(self._encode, texts, parameters, limit)
        sequences = [sequence for of_text in encoded for sequence in of_text]
        try:
            outputs = await self._batcher.submit(sequences)
        except Exception as error:
            logger.exception("the model failed on %d sequences", len(sequences))
            raise ModelFailedError from error
        return await self._with_texts(self._decode, texts, encoded, outputs, parameters)

    async def _with_texts(self, work: Callable[..., Result], texts: Sequence[str], *arguments: Any) -> Result:
        if self.model.encodes_inline(texts):
            return work(texts, *arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._text_thread, work, texts, *arguments)

    def _encode(
        self, texts: Sequence[str], parameters: TaskParameters, limit: InputLimit
    ) -> list[Sequence[EncodedSequence]]:
        encoded = []
        for number, text in enumerate(texts):
            try:
                encoded.append(self.model.encode(text, parameters, limit))
            except ServingError as error:
                if len(texts) > 1:
                    error.args = (f"texts[{number}]: {error}",)
                raise
        return encoded

    def _decode(
        self,
        texts: Sequence[str],
        encoded: Sequence[Sequence[EncodedSequence]],
        outputs: Sequence[Any],
        parameters: TaskParameters,
    ) -> list[Prediction]:
        remaining = iter(outputs)
        return [
            self.model.decode(text, of_text, [next(remaining) for _ in of_text], parameters)
            for text, of_text in zip(texts, encoded, strict=True)
        ]


def _batch_limits(user_config: UserConfig, model: TaskModel) -> BatchLimits:
    return BatchLimits(
        user_config.max_batch_size,
        user_config.max_batch_tokens,
        user_config.max_wait_milliseconds / 1000,
        model.batch_overhead_tokens,
        model.pads,
    )


def _require_texts(texts: Sequence[str]) -> None:
    if not 1 <= len(texts) <= MAX_TEXTS_PER_REQUEST:
        raise InvalidInputError(
            f"got {len(texts)} texts; one request takes 1 to {MAX_TEXTS_PER_REQUEST}",
            limit=MAX_TEXTS_PER_REQUEST,
        )
    for number, text in enumerate(texts):
        if not text.strip():
            where = f"texts[{number}]" if len(texts) > 1 else "the text"
            raise InvalidInputError(f"{where} is empty")
