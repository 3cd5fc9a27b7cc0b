"""How many replicas of this model there are: each has its share of the limits of a key.

Serve's controller tells its routers of every change by a long poll, and tells this replica likewise. Ray has
no public way to it; replicas know only how many there should have been when they were last configured.
"""

import asyncio
import logging
from typing import Any

from ray import serve
from ray.serve._private.common import DeploymentTargetInfo
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from ray.serve.context import _get_global_client

from serve_app.access.limits import KeyLimiter

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


class Siblings:
    """Keeps `limiter.replicas` as it is."""

    def __init__(self, limiter: KeyLimiter) -> None:
        self._limiter = limiter
        self._client: Any = None

    def watch(self) -> None:
        """Begin to watch; only the first call does anything."""
        if self._client is not None:
            return
        context = serve.get_replica_context()
        self._client = LongPollClient(
            _get_global_client()._controller,
            {(LongPollNamespace.DEPLOYMENT_TARGETS, context.replica_id.deployment_id): self._changed},
            call_in_event_loop=asyncio.get_running_loop(),
            client_id=f"limits of {context.replica_tag}",
        )

    def _changed(self, targets: DeploymentTargetInfo) -> None:
        replicas = max(1, len(targets.running_replicas))
        if replicas != self._limiter.replicas:
            logger.info("limits are shared by %d replicas", replicas)
        self._limiter.replicas = replicas
