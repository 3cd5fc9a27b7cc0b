"""The continuations of one request, which grow side by side: begun, iterated together, and ended together."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from serve_app.engine.base import Engine
from serve_app.engine.generation import Generation, GenerationRequest, Part, Quantity, TooMuchError
from serve_app.engine.records import RequestRecord, current_record
from serve_app.http.errors import InvalidInputError, RequestTimeoutError, ServingError, UnexpectedError
from serve_app.http.streaming import StreamedReply, error_event

logger = logging.getLogger("ray.serve")

# The number of a continuation, and what it has grown by.
Growth = tuple[int, Part]


class Deadline:
    """The time by which a whole answer must be there."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(self._end):
                yield
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"no whole answer within {self._seconds:g} seconds; a streamed one may take longer"
            ) from error


class Continuations:
    """Generations that have begun: the first part is there, so a later error is none of the request."""

    def __init__(
        self,
        generations: Sequence[Generation],
        first: Growth,
        rest: AsyncGenerator[Growth, None],
        deadline: Deadline,
    ) -> None:
        self._generations = generations
        self._first: Growth | None = first
        self._rest = rest
        self._deadline = deadline

    def prompt_tokens(self, per_prompt: int = 1) -> int:
        """Return the tokens of all prompts, of which each has `per_prompt` continuations in a row."""
        return sum(each.prompt_tokens for each in self._generations[::per_prompt])

    def cached_tokens(self, per_prompt: int = 1) -> int:
        """Return those of them that were computed for earlier requests."""
        return sum(each.cached_tokens for each in self._generations[::per_prompt])

    @property
    def generated_tokens(self) -> int:
        """How many tokens all of them have so far."""
        return sum(each.generated_tokens for each in self._generations)

    def __aiter__(self) -> "Continuations":
        return self

    async def __anext__(self) -> Growth:
        if self._first is None:
            return await anext(self._rest)
        first, self._first = self._first, None
        return first

    async def collected(self) -> list[list[Part]]:
        """Return the parts of each, once all are complete, or raise RequestTimeoutError."""
        parts: list[list[Part]] = [[] for _ in self._generations]
        try:
            async with self._deadline.kept():
                async for number, part in self:
                    parts[number].append(part)
        finally:
            await self.aclose()
        return parts

    async def aclose(self) -> None:
        """End all of them; harmless after the end."""
        await _close(self._generations, self._rest)

    def streamed(self, path: str, events: AsyncGenerator[bytes, None]) -> StreamedReply:
        """Return the reply of `events`, made of these; the event of an error is that of `path`."""
        return StreamedReply(_guarded(path, events, current_record()), self.aclose)


def text_of(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts)


async def begin(
    engine: Engine, requests: Sequence[GenerationRequest], members: Mapping[Quantity, str]
) -> Continuations:
    """Return the continuations as soon as one has its first part; raise a ServingError if one is refused.

    `members` are what the client calls what may be too much.
    """
    generations: list[Generation] = []
    deadline = Deadline(engine.request_timeout_seconds)
    rest = _grown(generations)
    owner = object()
    try:
        for number, request in enumerate(requests):
            is_new = number == 0 or request.prompt is not requests[number - 1].prompt
            own = replace(request, together=len(requests), owner=owner, counts_prompt=is_new)
            generations.append(await engine.generate(own))
        first = await anext(rest)
    except TooMuchError as error:
        await _close(generations, rest)
        names = [members.get(each, each) for each in error.quantities]
        raise InvalidInputError(f"{', '.join(names)}: {error}", member=names[0], **error.details) from error
    except BaseException:
        await _close(generations, rest)
        raise
    return Continuations(generations, first, rest, deadline)


async def _close(generations: Sequence[Generation], parts: AsyncGenerator[Growth, None]) -> None:
    await parts.aclose()
    for generation in generations:
        await generation.aclose()


async def _grown(generations: Sequence[Generation]) -> AsyncGenerator[Growth, None]:
    """Yield the parts of all generations as they come; the first error of one ends it."""
    if len(generations) == 1:
        async for part in generations[0]:
            yield 0, part
        return
    queue: asyncio.Queue[Growth | Exception] = asyncio.Queue()
    tasks = [
        asyncio.create_task(_collect(number, generation, queue))
        for number, generation in enumerate(generations)
    ]
    try:
        running = len(tasks)
        while running:
            growth = await queue.get()
            if isinstance(growth, Exception):
                raise growth
            running -= growth[1].finish_reason is not None
            yield growth
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _collect(number: int, generation: Generation, queue: asyncio.Queue[Growth | Exception]) -> None:
    try:
        async for part in generation:
            queue.put_nowait((number, part))
    except Exception as error:
        queue.put_nowait(error)


async def _guarded(
    path: str, events: AsyncGenerator[bytes, None], record: RequestRecord | None
) -> AsyncGenerator[bytes, None]:
    """Yield the events; an error becomes the last one, and is that of the record."""
    try:
        async for each in events:
            yield each
    except Exception as error:
        failure = error if isinstance(error, ServingError) else UnexpectedError()
        if failure is not error:
            logger.exception("unexpected error in the stream of %s", path)
        if record is not None:
            record.status, record.code = failure.status, failure.code
        yield error_event(path, failure)
    finally:
        await events.aclose()
