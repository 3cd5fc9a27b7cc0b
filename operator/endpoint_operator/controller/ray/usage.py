"""Ask the gateway what models have used, again and again, in a task of its own.

What it says is the same for every operator. The statuses say how much of it has been added already.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from endpoint_operator.controller.ray.dashboard import authorization
from serve_app.contract import USAGE_PATH, UsageReport

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 15.0
# Between two looks whether there is a Ray cluster to ask.
LOOK_SECONDS: Final = 1.0


class UsageClient:
    """The gateway at `url`, which is asked every `interval` seconds; never if `url` is empty."""

    def __init__(self, url: str, token_file: Path | None, interval: float) -> None:
        self._url = url
        self._token_file = token_file
        self._interval = interval
        self._silent = False
        # The newest answer.
        self.report: UsageReport | None = None
        # Whether there is a Ray cluster to ask.
        self.wanted = False

    async def run(self, on_change: Callable[[], None]) -> None:
        """Ask until cancelled; call `on_change` after each answer."""
        while self._url:
            if not self.wanted:
                await asyncio.sleep(min(LOOK_SECONDS, self._interval))
                continue
            if await self._ask():
                on_change()
            await asyncio.sleep(self._interval)

    async def _ask(self) -> bool:
        try:
            self.report = await self._fetch()
        except Exception as error:
            # Whatever it is, nothing is lost before two hours are over. Logged once, not for every attempt.
            if not self._silent:
                logger.warning("The gateway at %s does not say what models have used: %s", self._url, error)
            self._silent = True
            return False
        if self._silent:
            logger.info("The gateway at %s says what models have used again.", self._url)
        self._silent = False
        return True

    async def _fetch(self) -> UsageReport:
        # A new connection each time: the Kubernetes Service may lead to another Ray cluster by now.
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
            answer = await http.get(f"{self._url}{USAGE_PATH}", headers=authorization(self._token_file))
        answer.raise_for_status()
        return UsageReport.model_validate_json(answer.content)
