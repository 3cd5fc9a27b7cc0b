"""Answers that are sent while they are made: as plain data, and as a response that ends with its client.

The format is that of server-sent events (HTML standard, "Server-sent events").
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from serve_app.http.disconnect import cancel_when_gone
from serve_app.http.errors import ClientGoneError, Reply, ServingError
from serve_app.http.shapes import error_reply

EVENTS_TYPE: Final = "text/event-stream"
# Proxies neither store an answer that is not complete, nor wait until it is (nginx's header).
EVENTS_HEADERS: Final[Mapping[str, str]] = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

# Proxies and clients give up connections on which nothing comes, often after a minute.
KEEP_ALIVE_SECONDS: Final = 15.0
# A line that begins with a colon is a comment, which clients leave out.
COMMENT: Final = b": keep-alive\n\n"


def event(document: Any) -> bytes:
    """Return the event whose data is `document` in JSON, where NaN and infinity are null."""
    return data_event(to_json(document, inf_nan_mode="null"))


def data_event(data: bytes) -> bytes:
    """Return the event with this data, which has no line breaks."""
    return b"data: " + data + b"\n\n"


def error_event(path: str, error: ServingError) -> bytes:
    """Return the event that ends the stream of a request to `path`; its data is the body of the error.

    The client of OpenAI raises APIError for data with `error`, that of Hugging Face by its `error_type`.
    """
    # The streams of a model's own path are those of generate_stream.
    return data_event(error_reply(path or "generate_stream", error).body)


async def _nothing() -> None:
    pass


@dataclass(frozen=True)
class StreamHead:
    """What is known of a streamed answer before it begins."""

    content_type: str = EVENTS_TYPE
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: dict(EVENTS_HEADERS))


@dataclass(frozen=True)
class StreamedReply:
    """A reply whose body comes in pieces. `close` ends what makes them, also before the first one."""

    chunks: AsyncGenerator[bytes, None]
    close: Callable[[], Awaitable[None]] = _nothing
    head: StreamHead = field(default_factory=StreamHead)

    async def aclose(self) -> None:
        """Give up what is not made yet; harmless after the end."""
        try:
            await self.chunks.aclose()
        finally:
            await self.close()

    async def whole(self) -> Reply:
        """Return all pieces as one body, for those who cannot stream."""
        try:
            body = b"".join([chunk async for chunk in self.chunks])
        finally:
            await self.aclose()
        return Reply(body, self.head.content_type, self.head.status, self.head.headers)


class StreamedResponse(Response):
    """Sends a StreamedReply, with a comment whenever nothing else has been sent for a while.

    A client that leaves ends it at once.
    """

    def __init__(self, reply: StreamedReply, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        head = reply.head
        self.background = None
        self.status_code = head.status
        self.media_type = head.content_type
        self.init_headers(dict(head.headers))
        self._reply = reply
        self._seconds = keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the reply."""
        try:
            async with cancel_when_gone(receive), _kept_alive(send, self._seconds) as sent:
                await sent(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                async for chunk in self._reply.chunks:
                    await sent(_body(chunk))
                await sent(_body(b"", more=False))
        except ClientGoneError:
            # There is nobody to tell.
            return
        finally:
            await self._reply.aclose()


def _body(chunk: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


@asynccontextmanager
async def _kept_alive(send: Send, seconds: float) -> AsyncIterator[Send]:
    """Yield a `send` beside which comments are sent whenever it has rested for `seconds`.

    One task looks at a time stamp, which costs less than a timer for each piece.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    sending = False

    async def stamped(message: Message) -> None:
        nonlocal due, sending
        sending = True
        await send(message)
        sending = False
        due = loop.time() + seconds

    async def rest() -> None:
        nonlocal due
        while True:
            await asyncio.sleep(max(due - loop.time(), 0.001))
            # While a piece is being sent, the client is slow, or it has not even got the head.
            if loop.time() >= due:
                due = loop.time() + seconds
                if not sending:
                    await send(_body(COMMENT))

    task = loop.create_task(rest())
    try:
        yield stamped
    finally:
        task.cancel()
