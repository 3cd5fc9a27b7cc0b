"""Answer /healthz and /metrics over HTTP.

kopf's own probe shows only that its HTTP task is alive. It also retries a failing check for a minute within
the request. This probe fails when no reconciliation has succeeded for too long; of an operator that waits to
lead, when it could not look at the Lease for too long.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from endpoint_operator.controller.metrics import Metrics


class Heartbeat:
    """The time of the last look at the cluster that succeeded, or of the start."""

    def __init__(self) -> None:
        self.record()

    def record(self) -> None:
        """Note that a reconciliation, or a look at the Lease, succeeded now."""
        self._last = time.monotonic()
        self.timestamp = time.time()

    @property
    def age(self) -> float:
        """Seconds since the last success, or since the start."""
        return time.monotonic() - self._last


@asynccontextmanager
async def health_server(
    port: int, limit: float, heartbeat: Heartbeat, metrics: Metrics
) -> AsyncIterator[int]:
    """Serve until the block ends; yield the port. /healthz fails once `heartbeat` is older than `limit`."""

    async def healthz(request: web.Request) -> web.Response:
        age = heartbeat.age
        text = f"last look at the cluster that succeeded: {age:.0f} s ago, allowed are {limit:.0f} s\n"
        return web.Response(text=text, status=200 if age <= limit else 503)

    async def exposition(request: web.Request) -> web.Response:
        body = metrics.exposition(heartbeat.timestamp)
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
