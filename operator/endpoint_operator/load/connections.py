"""HTTP connections of a load generator: one request at a time on each, as little work as possible.

General clients cost a fifth of a small machine at 700 requests a second, which the server then lacks.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httptools


class Connections:
    """Connections to one URL, as many as requests are on their way, but no more than `most`.

    Those at rest are used again; a request that finds none waits.
    """

    def __init__(
        self, url: str, patience_seconds: float, most: int, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "localhost", parts.port or (443 if self._tls else 80)
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._head: Final = (
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n{more}"
        ).encode()
        self._patience = patience_seconds
        self._free = asyncio.Semaphore(most)
        self._idle: list[_Connection] = []

    async def post(self, body: bytes) -> int:
        """Return the status of the answer to `body`, once all of it is here; 0 if none came in time."""
        request = b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)
        async with self._free:
            try:
                connection = await self._connection()
            except OSError:
                return 0
            status = await connection.exchange(request, self._patience)
            if connection.usable:
                self._idle.append(connection)
        return status

    def close(self) -> None:
        """Close those at rest."""
        for connection in self._idle:
            connection.close()

    async def _connection(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._patience):
            _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection


class _Connection(asyncio.Protocol):
    """Sends one request and reads its answer, then the next."""

    def __init__(self) -> None:
        self.usable = True
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def exchange(self, request: bytes, patience_seconds: float) -> int:
        """Return the status of the answer; 0 if the connection ends before it is here, or time runs out."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        late = loop.call_later(patience_seconds, self.close)
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            late.cancel()

    def close(self) -> None:
        """End it; an answer that is awaited has failed."""
        self.usable = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_complete(self) -> None:
        """Note the status: httptools calls this at the end of an answer."""
        self.usable = self.usable and self._parser.should_keep_alive()
        self._settle(self._parser.get_status_code())

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        self._settle(0)

    def _settle(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)
