"""Ask Ray's dashboard for the number of replicas of each application, and notice when it stops answering.

KubeRay's status of the RayService has no numbers of replicas, and it stays as it is when Ray's head is gone.
The operator works without the dashboard.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from endpoint_operator.controller.decide.conditions import Replicas

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 5.0
# However often the RayService changes, the dashboard is asked at most this often.
SHORTEST_INTERVAL_SECONDS: Final = 1.0


class DashboardClient:
    """The dashboard at `url`; it is never asked if `url` is empty."""

    def __init__(self, url: str, token_file: Path | None, interval: float, patience: float) -> None:
        self._url = url
        self._token_file = token_file
        self._interval = interval
        self._patience = patience
        self._asked: float | None = None
        self._asked_at_version = ""
        self._answered: float | None = None
        self._silent = False
        self._replicas: dict[str, Replicas] | None = None

    @property
    def unreachable(self) -> bool:
        """Whether the dashboard has answered before, but not within `patience` seconds."""
        return self._answered is not None and time.monotonic() - self._answered > self._patience

    @property
    def requeue_after(self) -> float | None:
        """Seconds until the dashboard may be asked again; None if it is never asked."""
        if not self._url or self._asked is None:
            return None
        return max(0.0, self._asked + self._interval - time.monotonic())

    async def replicas(self, version: str) -> Mapping[str, Replicas] | None:
        """Return the replicas of each application; None if they are not known.

        `version` is the resourceVersion of the RayService: once it changes, earlier numbers are out of date.
        """
        if not self._url:
            return None
        shortest = SHORTEST_INTERVAL_SECONDS if version != self._asked_at_version else self._interval
        if self._asked is None or time.monotonic() - self._asked >= min(shortest, self._interval):
            self._asked = time.monotonic()
            self._asked_at_version = version
            await self._ask()
        return self._replicas

    async def _ask(self) -> None:
        try:
            # A new connection each time: the Kubernetes Service may lead to another Ray cluster by now.
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
                answer = await http.get(f"{self._url}/api/serve/applications/", headers=self._headers())
            answer.raise_for_status()
            self._replicas = count_replicas(answer.json())
            self._answered = time.monotonic()
            self._silent = False
        except (httpx.HTTPError, OSError, ValueError) as error:
            # Logged once, not for every attempt.
            if not self._silent:
                logger.warning("Ray's dashboard at %s gives no numbers of replicas: %r", self._url, error)
            self._silent = True
            self._replicas = None

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        # Read each time, because a mounted Secret can change.
        return {"Authorization": f"Bearer {self._token_file.read_text(encoding='utf-8').strip()}"}


def count_replicas(details: Mapping[str, Any]) -> dict[str, Replicas]:
    """Return the replicas of each application in Serve's REST answer; replicas that stop do not count."""
    counted = {}
    for name, application in details.get("applications", {}).items():
        states = [
            replica["state"]
            for deployment in application.get("deployments", {}).values()
            for replica in deployment.get("replicas", [])
        ]
        alive = [state for state in states if state != "STOPPING"]
        counted[name] = Replicas(total=len(alive), ready=alive.count("RUNNING"))
    return counted
