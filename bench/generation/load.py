"""The load generator of streams: a process that asks one URL for tokens and reports when they came.

Reads one JSON object from its standard input, a `Load` with the bodies, and writes one to its standard
output. Knows nothing of servers.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

from bench.generation.events import EventParser, Received, read
from bench.generation.prompts import arrivals, first_starts
from bench.generation.rows import GenerationRow
from bench.generation.summary import Summary, summarize
from bench.load import cpu_between, event_loop


@dataclass(frozen=True)
class Load:
    """What to ask for: by `streams` clients that wait for an end each, or at `rate` whatever comes back."""

    url: str
    streams: int = 0
    rate: float = 0.0
    warm_up_seconds: float = 4.0
    seconds: float = 20.0
    # A stream that takes longer has failed.
    patience_seconds: float = 120.0
    seed: int = 5


@dataclass(frozen=True)
class Report(Summary):
    """A summary with the client's own use of the processor, in cores."""

    client_cpu: float = 0.0


class _Answer(asyncio.Protocol):
    """Sends one request and notes when each event of its answer comes."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._events = EventParser()
        self.events: list[tuple[float, bytes]] = []
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._settle(0)

    def on_body(self, piece: bytes) -> None:
        """Note the events that a piece of the body completes: httptools calls this."""
        self.events += [(self._now, data) for data in self._events.feed(piece)]

    def on_message_complete(self) -> None:
        """Note the status: httptools calls this at the end of an answer."""
        self._settle(self._parser.get_status_code())

    def connection_lost(self, error: Exception | None) -> None:
        self._settle(0)

    def _settle(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)


class Client:
    """Asks for one stream after the other, each on a connection of its own, and keeps what came."""

    def __init__(self, load: Load, bodies: Sequence[bytes]) -> None:
        parts = urlsplit(load.url)
        self._host, self._port = parts.hostname or "localhost", parts.port or 80
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            "connection: close\r\n"
        ).encode()
        self._patience = load.patience_seconds
        self._bodies: Iterator[bytes] = itertools.cycle(bodies)
        self.received: list[Received] = []

    async def ask(self, intended: float) -> None:
        """Ask for the next stream, which was to begin at `intended`, and wait for its end."""
        body = next(self._bodies)
        request = b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)
        loop = asyncio.get_running_loop()
        try:
            transport, answer = await loop.create_connection(lambda: _Answer(request), self._host, self._port)
        except OSError:
            self.received.append(Received(intended, 0, []))
            # Without a server, a loop would only try to connect.
            await asyncio.sleep(0.1)
            return
        try:
            async with asyncio.timeout(self._patience):
                status = await answer.status
        except TimeoutError:
            status = 0
        finally:
            transport.abort()
        self.received.append(Received(intended, status, answer.events))

    async def ask_until(self, begin: float, end: float) -> None:
        """Ask from `begin` on, one stream after the other, for none after `end`."""
        await asyncio.sleep(begin - time.perf_counter())
        while (now := time.perf_counter()) < end:
            await self.ask(now)


async def run(load: Load, bodies: Sequence[bytes]) -> Report:
    """Ask until the time is over, wait for the last streams, and report."""
    client = Client(load, bodies)
    begun = time.perf_counter()
    start, end = begun + load.warm_up_seconds, begun + load.warm_up_seconds + load.seconds
    cpu = asyncio.create_task(cpu_between(start, end))
    if load.streams:
        offsets = first_starts(load.streams, load.warm_up_seconds / 2, load.seed)
        await asyncio.gather(*(client.ask_until(begun + offset, end) for offset in offsets))
    else:
        async with asyncio.TaskGroup() as group:
            for offset in arrivals(load.rate, load.warm_up_seconds, load.seconds, load.seed):
                await asyncio.sleep(begun + offset - time.perf_counter())
                group.create_task(client.ask(begun + offset))
    used = await cpu
    summary = summarize([read(each) for each in client.received], start, end)
    return Report(**asdict(summary), client_cpu=used / load.seconds)


def measure(load: Load, bodies: Sequence[str]) -> Report:
    """Run the load in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "bench.generation.load"],
        input=json.dumps({"load": asdict(load), "bodies": list(bodies)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=load.warm_up_seconds + load.seconds + 2 * load.patience_seconds,
    )
    if finished.returncode:
        raise RuntimeError(f"the load generator failed: {finished.stderr.strip()[-500:]}")
    return Report(**json.loads(finished.stdout))


def row_of(server: str, dtype: str, load: Load, report: Report) -> GenerationRow:
    """Return the row of a server in its plain form."""
    numbers = asdict(report)
    begun = numbers.pop("streams")
    return GenerationRow(server, dtype, load.streams, rate=load.rate, begun=begun, **numbers)


def main() -> None:
    """Do what standard input says."""
    document: dict[str, Any] = json.load(sys.stdin)
    bodies = [body.encode() for body in document["bodies"]]
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        report = runner.run(run(Load(**document["load"]), bodies))
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    main()
