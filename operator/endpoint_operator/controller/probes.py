"""Answer /healthz and /metrics over HTTP.

kopf's own probe says only that its HTTP task lives, and retries a failing check for a minute inside the
request; this one says when the last look at the cluster succeeded.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from endpoint_operator.controller.metrics import Metrics


class Pulse:
    """Remembers when the last look at the cluster succeeded."""

    def __init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        """Note a success."""
        self._last = time.monotonic()
        self.timestamp = time.time()

    @property
    def age(self) -> float:
        """Seconds since the last success, or since the start."""
        return time.monotonic() - self._last


@asynccontextmanager
async def health_server(port: int, limit: float, pulse: Pulse, metrics: Metrics) -> AsyncIterator[int]:
    """Serve until the end of the block, yield the port; /healthz fails once `pulse` is older than `limit`."""

    async def healthz(request: web.Request) -> web.Response:
        text = f"last look at the cluster that succeeded: {pulse.age:.0f} s ago, allowed are {limit:.0f} s\n"
        return web.Response(text=text, status=200 if pulse.age <= limit else 503)

    async def exposition(request: web.Request) -> web.Response:
        body = metrics.exposition(pulse.timestamp)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/metrics", exposition)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, None, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
