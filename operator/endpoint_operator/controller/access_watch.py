"""Let Ray's pods see new keys soon.

A kubelet looks for changes of what a pod has mounted every 60 to 90 seconds, and at once when the pod itself
changes. So the pods get an annotation with the versions of what says who may ask.
"""

import asyncio
import logging
from typing import Final

from endpoint_operator.kube.errors import KubeError
from endpoint_operator.kube.pods import PodsClient

ANNOTATION: Final = "serving.modelendpoint.dev/access-version"
LOOK_SECONDS: Final = 5.0

logger = logging.getLogger("endpoint_operator")


class AccessWatch:
    """Follows the Secret `keys` and the ConfigMap `settings`, which the pods of `selector` have mounted."""

    def __init__(self, pods: PodsClient, keys: str, settings: str, selector: str) -> None:
        self._pods = pods
        self._keys = keys
        self._settings = settings
        self._selector = selector
        self._told: str | None = None
        self._complaint = ""

    async def run(self) -> None:
        """Look again and again; what fails is said once and tried again."""
        while True:
            try:
                await self.look()
                self._complaint = ""
            except KubeError as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    logger.warning("Ray's pods may see new keys a minute later: %s", error)
            except Exception:
                logger.exception("Ray's pods may see new keys a minute later")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Annotate the pods if the keys or the settings have changed since the last time."""
        versions = [
            await self._pods.version_of("secrets", self._keys),
            await self._pods.version_of("configmaps", self._settings),
        ]
        value = ".".join(version or "none" for version in versions)
        if value == self._told:
            return
        # Pods have mounted what there was when they started. Whoever leads now does not know when that was.
        names = await self._pods.names(self._selector)
        for name in names:
            await self._pods.annotate(name, ANNOTATION, value)
        self._told = value
        logger.info("Told %d pods that the keys may have changed.", len(names))
