"""The operator process: build its parts from the settings and run until a signal comes."""

import asyncio
import logging
import os
import sys
from typing import Any, Final, cast

import kopf

from endpoint_operator.api.profiles import InvalidProfilesError
from endpoint_operator.controller.dashboard import DashboardClient
from endpoint_operator.controller.handlers import Memo, registry
from endpoint_operator.controller.loop import Reconciler
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.probes import Heartbeat, health_server
from endpoint_operator.controller.profiles_file import ProfilesFile
from endpoint_operator.controller.settings import Settings, SettingsError
from endpoint_operator.kube.client import FIELD_MANAGER, KubeClient, Scope, connect
from endpoint_operator.kube.errors import KubeError

logger = logging.getLogger("endpoint_operator")

ACCESS_RETRY_SECONDS: Final = 2.0

# The API server stores objects that are nested 10,000 deep, and Python decodes JSON by recursion.
RECURSION_LIMIT: Final = 25_000


def main() -> None:
    """Run the operator until SIGTERM or SIGINT; exit with a sentence if it cannot start."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    # At INFO, kopf logs the success of every handler for every event, and httpx each request.
    for library in ("kopf", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        settings = Settings.from_environment(os.environ)
        profiles = ProfilesFile(settings.profiles_file)
        asyncio.run(operate(settings, profiles))
    except (SettingsError, InvalidProfilesError, KubeError) as error:
        sys.exit(f"error: {error}")


async def operate(settings: Settings, profiles: ProfilesFile) -> None:
    """Watch and reconcile until a signal comes or kopf ends."""
    metrics, heartbeat = Metrics(), Heartbeat()
    scope = Scope(settings.namespace, settings.ray_service)
    dashboard = DashboardClient(
        settings.serve_api_url,
        settings.serve_api_token_file,
        settings.serve_api_seconds,
        settings.behind_seconds,
    )
    async with (
        health_server(settings.http_port, settings.liveness_seconds, heartbeat, metrics) as port,
        connect(scope, settings.request_timeout_seconds) as client,
    ):
        logger.info("Answering /healthz and /metrics at port %d.", port)
        reconciler = Reconciler(settings, client, profiles, dashboard, metrics, heartbeat)
        loop = asyncio.create_task(reconciler.run(), name="reconciler")
        try:
            await _wait_for_access(client)
            logger.info("Watching ModelEndpoints and RayServices of namespace %s.", settings.namespace)
            await kopf.operator(
                registry=registry,
                namespaces=[settings.namespace],
                memo=Memo(reconciler),
                # Without it, kopf looks up the user's name, which a pod with an arbitrary uid does not have.
                identity=cast(Any, FIELD_MANAGER),
            )
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        logger.info("Stopped.")


async def _wait_for_access(client: KubeClient) -> None:
    """Wait until both kinds can be listed: kopf looks up only once, at its start, which kinds exist."""
    while True:
        try:
            return await client.check_access()
        except KubeError as error:
            logger.warning("Waiting: %s", error)
            await asyncio.sleep(ACCESS_RETRY_SECONDS)
