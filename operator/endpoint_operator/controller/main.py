"""The operator process: put its parts together and run until a signal comes."""

import asyncio
import logging
import os
import sys
from typing import Any, cast

import kopf

from endpoint_operator.controller.dashboard import ServeStatus
from endpoint_operator.controller.handlers import Memo, registry
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.probes import Pulse, health_server
from endpoint_operator.controller.profiles_file import CatalogueError, CatalogueFile
from endpoint_operator.controller.reconciler import Reconciler
from endpoint_operator.controller.settings import Settings, SettingsError
from endpoint_operator.kube.client import FIELD_MANAGER, Cluster, ClusterError, Place, connected

logger = logging.getLogger("endpoint_operator")

PAUSE_SECONDS = 2.0


def main() -> None:
    """Run until SIGTERM or SIGINT; end with a sentence if that is not possible."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    # At INFO, it reports the success of every handler for every event.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    try:
        settings = Settings.from_environment(os.environ)
        catalogue = CatalogueFile(settings.profiles_file)
        asyncio.run(operate(settings, catalogue))
    except (SettingsError, CatalogueError, ClusterError) as error:
        sys.exit(f"error: {error}")


async def operate(settings: Settings, catalogue: CatalogueFile) -> None:
    """Watch, decide and write until a signal comes or a watch breaks down."""
    metrics, pulse = Metrics(), Pulse()
    place = Place(settings.namespace, settings.ray_service)
    serve_status = ServeStatus(
        settings.serve_api_url,
        settings.serve_api_token_file,
        settings.serve_api_seconds,
        settings.behind_seconds,
    )
    async with (
        health_server(settings.http_port, settings.liveness_seconds, pulse, metrics) as port,
        connected(place, settings.request_timeout_seconds) as cluster,
    ):
        logger.info("Answering /healthz and /metrics at port %d.", port)
        reconciler = Reconciler(settings, cluster, catalogue, serve_status, metrics, pulse)
        loop = asyncio.create_task(reconciler.run(), name="reconciler")
        try:
            await _wait_for_access(cluster)
            logger.info("Watching ModelEndpoints and RayServices of namespace %s.", settings.namespace)
            await kopf.operator(
                registry=registry,
                namespaces=[settings.namespace],
                memo=Memo(reconciler),
                # Left out, kopf asks who runs it, which nobody knows in a pod with a user of its own.
                identity=cast(Any, FIELD_MANAGER),
            )
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        logger.info("Stopped.")


async def _wait_for_access(cluster: Cluster) -> None:
    """Wait until both kinds can be read: kopf looks only once, at its start, what kinds there are."""
    while True:
        try:
            return await cluster.check_access()
        except ClusterError as error:
            logger.warning("Waiting: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
