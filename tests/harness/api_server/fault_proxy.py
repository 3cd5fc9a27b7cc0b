"""A proxy between one client and the API server that can be told, while it runs, to do harm.

It speaks TLS on both sides, with the control plane's own certificate, so that a client needs nothing
but another address. Streams pass through as they come. It does not know upgrades (exec, attach).
"""

import asyncio
import ssl
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp import web

from tests.harness.api_server.control_plane import ControlPlane
from tests.harness.api_server.faults import (
    Answer,
    CutAfter,
    Delay,
    EndWatch,
    Fault,
    GoneEvent,
    Hang,
    Late,
    ShortList,
    gone_event,
    is_watch,
    shortened,
    status_body,
)

WRITES: Final = ("POST", "PUT", "PATCH", "DELETE")

# Of one connection, not of the message; aiohttp writes its own.
_HOP_BY_HOP: Final = ("Host", "Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length")
_CALL_SECONDS: Final = 10

Result = TypeVar("Result")
AnyFault = TypeVar("AnyFault", bound=Fault)


@dataclass
class Request:
    """A request that came in, and what became of it."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)
    # Whether the API server has had it.
    passed: bool = False
    # Of the answer that was sent to the client; None while there is none.
    status: int | None = None
    # When the client went away without an answer.
    given_up_at: float | None = None

    @property
    def is_write(self) -> bool:
        """Whether it asks for a change."""
        return self.method in WRITES


class FaultProxy:
    """A running proxy: its address, the requests so far, and the faults of the moment."""

    def __init__(self, server: ControlPlane) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self._server = server
        self._faults: dict[Fault, int] = {}
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        # A task that nobody refers to may be thrown away.
        self._late: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def writes(self, path: str = "") -> list[Request]:
        """Return the writes that reached the API server and whose path contains `path`."""
        return [
            request
            for request in list(self.requests)
            if request.is_write and request.passed and path in request.path
        ]

    @contextmanager
    def suffering(self, *faults: Fault) -> Iterator[None]:
        """Hurt requests as `faults` say until the end of the block."""
        self._call(self._alter(add=faults))
        try:
            yield
        finally:
            self._call(self._alter(remove=faults))

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Break all connections and refuse new ones until the end of the block."""
        self._call(self._stop_listening())
        try:
            yield
        finally:
            self._call(self._listen())

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        self._call(self._start())

    def stop(self) -> None:
        """Break all connections and end."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    async def _start(self) -> None:
        trust = ssl.create_default_context(cafile=self._server.ca)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # A client that goes away takes its request to the API server with it.
        self._web = web.Server(self._handle, handler_cancellation=True)
        self._runner = web.ServerRunner(self._web, shutdown_timeout=0)
        await self._runner.setup()
        self._certificate = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        folder = self._server.folder
        self._certificate.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._port = 0
        await self._listen()
        self._port = self._runner.addresses[0][1]
        self.url = f"https://127.0.0.1:{self._port}"

    async def _stop(self) -> None:
        await self._stop_listening()
        for task in self._late:
            task.cancel()
        await self._runner.cleanup()
        await self._session.close()

    async def _listen(self) -> None:
        self._site = web.TCPSite(
            self._runner, "127.0.0.1", self._port, ssl_context=self._certificate, reuse_address=True
        )
        await self._site.start()

    async def _stop_listening(self) -> None:
        await self._site.stop()
        for connection in list(self._web.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _alter(self, add: tuple[Fault, ...] = (), remove: tuple[Fault, ...] = ()) -> None:
        for fault in add:
            self._faults[fault] = 0
        for fault in remove:
            del self._faults[fault]
        self._changed.set()
        self._changed = asyncio.Event()

    def _fault(self, kind: type[AnyFault], request: web.BaseRequest) -> AnyFault | None:
        """Return the fault of this kind that hurts `request` now, and count it."""
        for fault, times in self._faults.items():
            over = fault.times is not None and times >= fault.times
            if (
                isinstance(fault, kind)
                and not over
                and fault.hurts(request.method, request.path, request.query)
            ):
                self._faults[fault] += 1
                return fault
        return None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        seen = Request(request.method, request.path, dict(request.query), body)
        self.requests.append(seen)
        if delay := self._fault(Delay, request):
            await asyncio.sleep(delay.seconds)
        if late := self._fault(Late, request):
            task = asyncio.create_task(self._pass_on_late(late, request, seen))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                seen.given_up_at = time.monotonic()
                raise
            return _broken(request)
        if self._fault(Hang, request):
            await _for_ever()
        if answer := self._fault(Answer, request):
            seen.status = answer.status
            return _error(answer)
        try:
            return await self._pass_on(request, seen)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            # The client meets the same as without a proxy: a connection that breaks.
            return _broken(request)

    async def _pass_on_late(self, fault: Late, request: web.BaseRequest, seen: Request) -> None:
        url, headers = f"{self._server.url}{request.path_qs}", self._passed_on(request)
        while fault in self._faults:
            await self._changed.wait()
        async with self._session.request(request.method, url, data=seen.body, headers=headers) as answer:
            seen.passed = True
            seen.status = answer.status

    def _passed_on(self, request: web.BaseRequest) -> Mapping[str, str]:
        headers = request.headers.copy()
        # Compressed bodies could not be shortened.
        for name in (*_HOP_BY_HOP, "Accept-Encoding"):
            headers.popall(name, None)
        return headers

    async def _pass_on(self, request: web.BaseRequest, seen: Request) -> web.StreamResponse:
        url = f"{self._server.url}{request.path_qs}"
        async with self._session.request(
            request.method,
            url,
            data=seen.body or None,
            headers=self._passed_on(request),
            allow_redirects=False,
        ) as answer:
            seen.passed = True
            cut = self._fault(CutAfter, request)
            if cut and cut.size == 0:
                return _broken(request)
            return await self._answer(request, seen, answer, cut.size if cut else None)

    async def _answer(
        self, request: web.BaseRequest, seen: Request, answer: aiohttp.ClientResponse, size: int | None
    ) -> web.StreamResponse:
        seen.status = answer.status
        headers = answer.headers.copy()
        for name in _HOP_BY_HOP:
            headers.popall(name, None)
        if answer.ok and not is_watch(request.query) and (short := self._fault(ShortList, request)):
            return web.Response(body=shortened(await answer.read(), short.items), headers=headers)
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.content_length = answer.content_length
        await response.prepare(request)
        if is_watch(request.query):
            end = self._fault(EndWatch, request)
            with suppress(TimeoutError):
                async with asyncio.timeout(end.seconds if end else None):
                    await self._stream_watch(request, response, answer, size)
        else:
            await _stream(request, response, answer, size)
        return response

    async def _stream_watch(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        answer: aiohttp.ClientResponse,
        size: int | None,
    ) -> None:
        """Send the events on as they come, and wake for faults that come while none does."""
        reading = asyncio.create_task(_stream(request, response, answer, size))
        tasks: set[asyncio.Task[Any]] = {reading}
        try:
            while not reading.done():
                if self._fault(Hang, request):
                    reading.cancel()
                    await _for_ever()
                if self._fault(GoneEvent, request):
                    reading.cancel()
                    await response.write(gone_event())
                    return
                changed = asyncio.create_task(self._changed.wait())
                tasks.add(changed)
                await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
            await reading
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _stream(
    request: web.BaseRequest,
    response: web.StreamResponse,
    answer: aiohttp.ClientResponse,
    size: int | None,
) -> None:
    """Copy the body; break the connection after `size` bytes."""
    left = size
    async for chunk in answer.content.iter_any():
        await response.write(chunk if left is None else chunk[:left])
        if left is not None:
            left -= len(chunk)
            if left <= 0:
                _broken(request)
                return


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _broken(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    # Nobody reads it: aiohttp wants an answer from each handler.
    return web.Response(status=502)


def _error(answer: Answer) -> web.Response:
    headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
    return web.json_response(status_body(answer.status), status=answer.status, headers=headers)


@contextmanager
def fault_proxy(server: ControlPlane) -> Iterator[FaultProxy]:
    """Run a proxy in front of `server` until the end of the block."""
    proxy = FaultProxy(server)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
