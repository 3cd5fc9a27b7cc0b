"""The engine of a model: acquire a slot, encode, run in a batch, decode.

It knows neither Ray nor torch, and of HTTP only the errors. A model that is computed in steps has a batch
that sequences join and leave at any step, and streams. Other models that generate run here too: a batch of
texts with the same parameters is one call of `generate`, and lasts as long as its longest member.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from serve_app.contract import (
    MAX_ANSWER_CHARACTERS,
    MAX_TEXTS_PER_REQUEST,
    MAX_TOKENS_PER_REQUEST,
    ModelArgs,
    UserConfig,
)
from serve_app.engine.admission import Admission
from serve_app.engine.base import (
    Answer,
    EncodedSequence,
    Engine,
    Input,
    InputLimit,
    Prediction,
    TaskModel,
    texts_of,
)
from serve_app.engine.batch_planner import BatchLimits
from serve_app.engine.batcher import Batcher
from serve_app.engine.continuous.batcher import ContinuousBatcher
from serve_app.engine.continuous.continuation import Continuation
from serve_app.engine.continuous.figures import Figures
from serve_app.engine.generation import GenerationRequest, Quantity, TooMuchError
from serve_app.engine.records import Observers, current_record
from serve_app.engine.streamed import StreamedGeneration
from serve_app.engine.streams import Streams
from serve_app.http.errors import (
    InvalidInputError,
    ModelFailedError,
    ModelNotReadyError,
    RequestTimeoutError,
    ServingError,
)
from serve_app.parameters import InvalidParameterError, TaskParameters, parse_parameters

# A batch may take longer than a short request timeout, and the model is not stuck because of that.
SHORTEST_STUCK_SECONDS: Final = 30.0

# How long one request may have the thread for texts while others wait for it.
TURN_SECONDS: Final = 0.005

Result = TypeVar("Result")
Submit = Callable[[Sequence[EncodedSequence]], Awaitable[list[Any]]]

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
        self.commit = ""
        self._user_config = user_config
        streams = Streams(model.batches_at_once, model.prepare_thread, side=model.has_side_stream)
        limits = _batch_limits(user_config, model)
        self.observers = Observers()
        self._batcher = (
            Batcher(model.forward, limits, streams, self.observers)
            if model.steps is None
            else ContinuousBatcher(model.steps, limits, streams, self.observers)
        )
        self._text_thread = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._admission = Admission()

    @property
    def input_limit(self) -> InputLimit:
        limit = min(self._user_config.max_input_tokens, self.model.max_tokens)
        return InputLimit(limit, self._user_config.truncate_input)

    @property
    def request_timeout_seconds(self) -> float:
        return self._user_config.request_timeout_seconds

    def reconfigure(self, user_config: UserConfig) -> None:
        """Apply new settings; requests that are already inside keep their limits."""
        self._user_config = user_config
        self._batcher.limits = _batch_limits(user_config, self.model)

    async def answer(
        self,
        texts: Sequence[Input],
        overrides: Mapping[str, Any] | None = None,
        truncate: bool | None = None,
    ) -> Answer:
        _require_texts(texts, self.model, self.args.task)
        parameters = self._parameters(overrides)
        limit = self._limit(truncate)
        seconds = self._user_config.request_timeout_seconds
        await self._admission.wait_for_share(self._user_config.max_requests)
        with self._place():
            try:
                async with asyncio.timeout(seconds):
                    return await self._answer(texts, parameters, limit)
            except TimeoutError as error:
                raise RequestTimeoutError(f"no answer within {seconds:g} seconds") from error

    async def generate(self, request: GenerationRequest) -> StreamedGeneration:
        parameters = self._parameters(request.parameters)
        limit = self._limit(request.truncate)
        self._require_places(request)
        await self._admission.wait_for_share(self._user_config.max_requests)
        with ExitStack() as held:
            held.enter_context(self._place())
            loop = asyncio.get_running_loop()
            continuation = await loop.run_in_executor(
                self._text_thread, self.model.continuation, request, parameters, limit
            )
            assert isinstance(continuation, Continuation)
            assert isinstance(self._batcher, ContinuousBatcher)
            continuation = replace(continuation, new_tokens=request.bounded(continuation.new_tokens))
            self._require_room(request, continuation.new_tokens)
            held.enter_context(self._large(continuation.tokens))
            stream = self._batcher.stream(continuation, request.owner)
            if stream.record is not None and request.counts_prompt:
                stream.record.input_tokens += continuation.length
            return StreamedGeneration(
                stream, continuation, self.model, self._user_config.request_timeout_seconds, held.pop_all()
            )

    @property
    def figures(self) -> Figures | None:
        """What is counted of a model that is computed in steps."""
        return self._batcher.figures if isinstance(self._batcher, ContinuousBatcher) else None

    @property
    def load(self) -> float | None:
        """How full the replica is, if its model is computed in steps; a health check alone is no load."""
        if not isinstance(self._batcher, ContinuousBatcher):
            return None
        return self._batcher.load if self._admission.requests else 0.0

    def end_streams(self) -> None:
        """Let every stream end with an error, because the replica is about to stop."""
        if isinstance(self._batcher, ContinuousBatcher):
            self._batcher.end_streams(ModelNotReadyError("this replica stops; send the request again"))

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
        submit: Submit = self._batcher.submit
        if isinstance(self._batcher, ContinuousBatcher):
            submit = partial(self._batcher.submit, counted=False)
        await self._answer([self.model.warmup_text], parameters, limit, submit)

    async def close(self) -> None:
        """Stop the threads, and end all requests."""
        self.end_streams()
        await self._batcher.close()
        self._text_thread.shutdown(wait=False, cancel_futures=True)

    def _parameters(self, overrides: Mapping[str, Any] | None) -> TaskParameters:
        try:
            return parse_parameters(self.args.task, self._user_config.parameters, overrides)
        except InvalidParameterError as error:
            raise InvalidInputError(str(error)) from error

    def _limit(self, truncate: bool | None) -> InputLimit:
        """Return the limit for a request that says whether to truncate, or leaves that to the endpoint."""
        limit = self.input_limit
        return limit if truncate is None else replace(limit, truncate=truncate)

    def _require_places(self, request: GenerationRequest) -> None:
        """Raise TooMuchError if an idle replica would refuse one of the client's continuations too."""
        limit = self._admission.most_places(self._user_config.max_requests)
        if request.together > limit:
            raise TooMuchError(
                f"the request has {request.together} continuations, and a replica of this endpoint takes "
                f"{limit}",
                Quantity.CONTINUATIONS,
                limit=limit,
            )

    def _require_room(self, request: GenerationRequest, new_tokens: int) -> None:
        """Do the same for their tokens, of which those of the prompts alone always find room."""
        limit = self._user_config.max_requests * self.input_limit.max_tokens
        if request.together > 1 and request.together * new_tokens > limit:
            raise TooMuchError(
                f"{request.together} continuations of up to {new_tokens} tokens are more than the {limit} "
                "tokens that a replica of this endpoint takes",
                Quantity.CONTINUATIONS,
                Quantity.NEW_TOKENS,
                limit=limit,
            )

    def _place(self) -> AbstractContextManager[None]:
        return self._admission.place(self._user_config.max_requests)

    def _large(self, tokens: int) -> AbstractContextManager[None]:
        """Count the tokens of a large request; all get what the replica holds of the longest texts."""
        longest = self.input_limit.max_tokens
        return self._admission.tokens(tokens, longest, self._user_config.max_requests * longest)

    async def _answer(
        self,
        texts: Sequence[Input],
        parameters: TaskParameters,
        limit: InputLimit,
        submit: Submit | None = None,
    ) -> Answer:
        encoded = await self._encode(texts, parameters, limit)
        sequences = [sequence for of_text in encoded for sequence in of_text]
        length = sum(sequence.length for sequence in sequences)
        record = current_record()
        if record is not None:
            # Before they are computed: a client that leaves has asked for them.
            record.input_tokens += length
        with self._large(sum(sequence.tokens for sequence in sequences)):
            try:
                outputs = await (submit or self._batcher.submit)(sequences)
            except Exception as error:
                logger.exception("the model failed on %d sequences", len(sequences))
                raise ModelFailedError from error
            if record is not None:
                record.output_tokens += self.model.output_tokens(outputs)
            return Answer(await self._decode(texts, encoded, outputs, parameters), length)

    async def _encode(
        self, texts: Sequence[Input], parameters: TaskParameters, limit: InputLimit
    ) -> list[Sequence[EncodedSequence]]:
        tokens = characters = 0

        def encode(number: int) -> Sequence[EncodedSequence]:
            nonlocal tokens, characters
            try:
                sequences = self.model.encode(texts[number], parameters, limit)
            except ServingError as error:
                if len(texts) > 1:
                    error.args = (f"texts[{number}]: {error}",)
                raise
            tokens += sum(sequence.tokens for sequence in sequences)
            characters += self.model.answer_characters(texts[number], sequences, parameters)
            _require_affordable(tokens, characters)
            return sequences

        return await self._for_each_text(texts, encode)

    async def _decode(
        self,
        texts: Sequence[Input],
        encoded: Sequence[Sequence[EncodedSequence]],
        outputs: Sequence[Any],
        parameters: TaskParameters,
    ) -> list[Prediction]:
        remaining = iter(outputs)

        def decode(number: int) -> Prediction:
            own = [next(remaining) for _ in encoded[number]]
            return self.model.decode(texts[number], encoded[number], own, parameters)

        return await self._for_each_text(texts, decode)

    async def _for_each_text(self, texts: Sequence[Input], work: Callable[[int], Result]) -> list[Result]:
        """Return what `work` returns for the number of each text.

        In the thread for texts, requests take turns, and one whose client has gone is over after its turn.
        """
        if self.model.encodes_inline(texts):
            return [work(number) for number in range(len(texts))]
        loop = asyncio.get_running_loop()
        results: list[Result] = []
        while len(results) < len(texts):
            results += await loop.run_in_executor(self._text_thread, _some, work, len(results), len(texts))
        return results


def _some(work: Callable[[int], Result], begin: int, end: int) -> list[Result]:
    """Return the results of `work` for numbers from `begin` on, as many as one turn allows."""
    until = time.monotonic() + TURN_SECONDS
    results = [work(begin)]
    while begin + len(results) < end and time.monotonic() < until:
        results.append(work(begin + len(results)))
    return results


def _require_affordable(tokens: int, characters: int) -> None:
    """Raise InvalidInputError if one request asks for too much work, or for too long an answer."""
    if tokens > MAX_TOKENS_PER_REQUEST:
        raise InvalidInputError(
            f"the request has more than {MAX_TOKENS_PER_REQUEST} tokens, counted for each text and label, "
            "with those to be generated; send fewer texts in one request",
            limit=MAX_TOKENS_PER_REQUEST,
        )
    if characters > MAX_ANSWER_CHARACTERS:
        raise InvalidInputError(
            f"the answer would have more than {MAX_ANSWER_CHARACTERS} characters; send fewer texts in one "
            "request, or ask for fewer answers to each",
            limit=MAX_ANSWER_CHARACTERS,
        )


def _batch_limits(user_config: UserConfig, model: TaskModel) -> BatchLimits:
    return BatchLimits(
        user_config.max_batch_size,
        user_config.max_batch_tokens,
        user_config.max_wait_milliseconds / 1000,
        model.batch_overhead_tokens,
        model.pads,
    )


def _require_texts(texts: Sequence[Input], model: TaskModel, task: str) -> None:
    """Raise InvalidInputError for too many inputs, and for one that is empty or of another kind."""
    if not 1 <= len(texts) <= MAX_TEXTS_PER_REQUEST:
        raise InvalidInputError(
            f"got {len(texts)} texts; one request takes 1 to {MAX_TEXTS_PER_REQUEST}",
            limit=MAX_TEXTS_PER_REQUEST,
        )
    for number, text in enumerate(texts):
        parts = texts_of(text)
        if not model.inputs_required <= len(parts) <= len(model.input_names):
            wanted = " and ".join(model.input_names[: max(model.inputs_required, 1)])
            where = f"texts[{number}]: " if len(texts) > 1 else ""
            raise InvalidInputError(
                f"{where}{task} takes {wanted} for each input, and got {len(parts)} text(s)"
            )
        for name, part in zip(model.input_names, parts, strict=False):
            if not part.strip():
                where = f"texts[{number}]" if len(texts) > 1 else "the text"
                where = where if len(parts) == 1 else f"{where}: {name}"
                raise InvalidInputError(f"{where} is empty")
