"""Create events, but no more than the API server should be bothered with."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from endpoint_operator.controller.announcements import Announcement
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.kube.client import Cluster, ClusterError

logger = logging.getLogger(__name__)

# So many at once, and one more after each of these.
BURST: Final = 25
SECONDS_PER_EVENT: Final = 2.0


class Announcer:
    """Hands announcements to the API server; what is too much is counted and dropped."""

    def __init__(self, cluster: Cluster, metrics: Metrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._left = float(BURST)
        self._counted = 0.0

    async def announce(self, announcements: Iterable[Announcement]) -> None:
        """Create the events; one that cannot be created is no reason to stop."""
        for announcement in announcements:
            if not self._may_go():
                self._metrics.events_dropped.inc()
                continue
            try:
                await self._cluster.announce(announcement, datetime.now(UTC))
            except ClusterError as error:
                logger.info("%s", error)

    def _may_go(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._left = min(BURST, self._left + (now - self._counted) / SECONDS_PER_EVENT)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
