"""Ask Ray's dashboard what Serve does, again and again, in a task of its own: a slow head delays no write.

KubeRay's status of the RayService says less, and it stays as it is when Ray's head is gone. The operator also
works without the dashboard.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx

from endpoint_operator.controller.observed.ray_view import DashboardReport
from endpoint_operator.controller.observed.rayservice import ApplicationReport
from endpoint_operator.controller.observed.serve_details import parse_serve_details

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 5.0
# However often the RayService changes, the dashboard is asked at most this often.
SHORTEST_INTERVAL_SECONDS: Final = 1.0


class DashboardClient:
    """The dashboard at `url`; it is never asked if `url` is empty.

    It is asked every `interval` seconds, and more often while somebody hurries. An answer counts for
    `patience` seconds.
    """

    def __init__(self, url: str, token_file: Path | None, interval: float, patience: float) -> None:
        self._url = url
        self._token_file = token_file
        self._interval = interval
        self._patience = patience
        # The active Ray cluster, to which the address leads; empty before there is one.
        self._cluster = ""
        self._report: DashboardReport | None = None
        # When it answered last, or when there was a cluster to ask for the first time.
        self._answered_at: float | None = None
        self._hurried = False
        self._wanted = asyncio.Event()
        self._silent = False
        # The head answers, but does not know our token.
        self.locked_out = False

    @property
    def report(self) -> DashboardReport | None:
        """The newest answer; None if it is too old."""
        return None if self.overdue or self.locked_out else self._report

    @property
    def overdue(self) -> bool:
        """Whether it has not answered for too long although there is a cluster to ask."""
        if not self._url or self._answered_at is None:
            return False
        return _now() - self._answered_at > self._patience

    @property
    def awaited(self) -> bool:
        """Whether it has been asked and has not answered yet since this process started."""
        return bool(self._url and self._cluster) and self._report is None and not self.locked_out

    def ask(self, cluster: str) -> None:
        """Ask soon; `cluster` is the active Ray cluster, empty if there is none."""
        if cluster != self._cluster:
            self._cluster = cluster
            self._answered_at = _now() if cluster else None
        self._wanted.set()

    def hurry(self, wanted: bool) -> None:
        """Ask often while something is expected to change."""
        self._hurried = wanted

    async def run(self, on_change: Callable[[], None]) -> None:
        """Ask until cancelled; call `on_change` when the answer has changed, and when answers stop."""
        told: object = None
        while self._url:
            self._wanted.clear()
            began = _now()
            if self._cluster:
                await self._ask()
            if (state := (self.report, self.overdue)) != told:
                told = state
                on_change()
            # A head that is slow to answer is asked less often.
            pause = min(max(SHORTEST_INTERVAL_SECONDS, 5 * (_now() - began)), self._interval)
            await asyncio.sleep(pause)
            if not self._hurried:
                await self._wait(self._interval - pause)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            return

    async def _ask(self) -> None:
        cluster = self._cluster
        try:
            applications = await self._applications()
        except Exception as error:
            # Whatever it is, the next attempt may do better. Logged once, not for every attempt.
            if not self._silent:
                logger.warning("Ray's dashboard at %s does not say what Serve does: %r", self._url, error)
            self._silent = True
            self.locked_out = _is_about_the_token(error)
            return
        if cluster == self._cluster:
            self._report = DashboardReport(cluster, applications)
            self._answered_at = _now()
        if self._silent:
            logger.info("Ray's dashboard at %s answers again.", self._url)
        self._silent = self.locked_out = False

    async def _applications(self) -> Mapping[str, ApplicationReport]:
        # A new connection each time: the Kubernetes Service may lead to another Ray cluster by now.
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
            answer = await http.get(
                f"{self._url}/api/serve/applications/", headers=authorization(self._token_file)
            )
        answer.raise_for_status()
        return parse_serve_details(answer.json())


def authorization(token_file: Path | None) -> dict[str, str]:
    """Return the header with Ray's token; none without a file. Raises OSError."""
    if token_file is None:
        return {}
    # Read each time, because a mounted Secret can change.
    return {"Authorization": f"Bearer {token_file.read_text(encoding='utf-8').strip()}"}


def _is_about_the_token(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403)


def _now() -> float:
    return asyncio.get_running_loop().time()
