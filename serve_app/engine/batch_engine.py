"""Answer texts with one loaded model: admit, encode, batch, decode. Knows neither HTTP nor Ray."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from serve_app.contract import MAX_TEXTS_PER_REQUEST, ModelArgs, UserConfig
from serve_app.engine.base import EncodedSequence, InputLimit, Prediction, TaskModel
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

# A batch may well take longer than a client with little patience waits.
SHORTEST_STUCK_SECONDS: Final = 30.0

Result = TypeVar("Result")

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class StuckModelError(Exception):
    """The forward pass has not moved for longer than any client waits."""


class BatchEngine:
    """One model with its batcher and its limits.

    Not every tokenizer can be shared between threads, so encoding and decoding runs in one thread, beside
    the batcher's and off the event loop. What is too brief for that runs at once: while the processor is
    full, each change of threads waits for its turn.
    """

    def __init__(self, args: ModelArgs, model: TaskModel, user_config: UserConfig) -> None:
        self.args = args
        self.model = model
        # Seconds of the parts of this replica's start, once it is over.
        self.cold_start: Mapping[str, float] = {}
        self._user_config = user_config
        streams = Streams(model.batches_at_once, model.prepare_thread)
        self._batcher = Batcher(model.forward, _batch_limits(user_config, model), streams)
        self._text_thread = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._requests = 0

    @property
    def input_limit(self) -> InputLimit:
        """The endpoint's limit, or the model's own if that is lower."""
        limit = min(self._user_config.max_input_tokens, self.model.max_tokens)
        return InputLimit(limit, self._user_config.truncate_input)

    def reconfigure(self, user_config: UserConfig) -> None:
        """Take over new settings; requests that are inside keep the limits that they came with."""
        self._user_config = user_config
        self._batcher.limits = _batch_limits(user_config, self.model)

    async def predict(
        self, texts: Sequence[str], overrides: Mapping[str, Any] | None = None
    ) -> list[Prediction]:
        """Return one prediction for each text.

        Raises a ServingError: invalid input 422, time limit 408, too many requests 429.
        """
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
        """Run the model on a tiny text; a model that is busy and moving is healthy as it is.

        Raises StuckModelError if the running batch has stopped moving, or what the model raised.
        """
        stuck = self._batcher.seconds_without_progress()
        if stuck > max(self._user_config.request_timeout_seconds, SHORTEST_STUCK_SECONDS):
            raise StuckModelError(f"the model has been running one batch for {stuck:.0f} seconds")
        if not self._batcher.busy:
            await self.warm_up()

    async def warm_up(self) -> None:
        """Answer the task's tiny request, whatever the endpoint's parameters and limits are."""
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
