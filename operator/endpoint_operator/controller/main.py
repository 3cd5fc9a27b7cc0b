"""The operator process: build its parts from the settings and run until a signal comes."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, cast

import kopf

from endpoint_operator.api.profiles import InvalidProfilesError
from endpoint_operator.controller.access_watch import AccessWatch
from endpoint_operator.controller.handlers import Memo, registry
from endpoint_operator.controller.leadership.election import (
    ANSWER_WITHIN,
    Election,
    LeadershipLostError,
    new_identity,
)
from endpoint_operator.controller.loop import Reconciler
from endpoint_operator.controller.metrics import Metrics
from endpoint_operator.controller.probes import Heartbeat, health_server
from endpoint_operator.controller.profiles_file import ProfilesFile
from endpoint_operator.controller.ray.dashboard import DashboardClient
from endpoint_operator.controller.ray.usage import UsageClient
from endpoint_operator.controller.settings import Settings, SettingsError
from endpoint_operator.kube.client import FIELD_MANAGER, KubeClient, Scope, connect
from endpoint_operator.kube.errors import KubeError
from endpoint_operator.kube.gate import WriteGate

logger = logging.getLogger("endpoint_operator")

ACCESS_RETRY_SECONDS: Final = 2.0

# What a write that is under way gets at the end. Kubernetes waits for 30 s.
WRITES_END_SECONDS: Final = 5.0

# The API server stores objects that are nested 10,000 deep, and Python decodes JSON by recursion.
RECURSION_LIMIT: Final = 25_000


def main() -> None:
    """Run the operator until SIGTERM or SIGINT; exit with a sentence if it cannot start or may not go on."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    # At INFO, kopf logs the success of every handler for every event, and httpx each request.
    for library in ("kopf", "httpx"):
        logging.getLogger(library).setLevel(logging.WARNING)
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        settings = Settings.from_environment(os.environ)
        profiles = ProfilesFile(settings.profiles_file)
        asyncio.run(operate(settings, profiles))
    except (SettingsError, InvalidProfilesError, KubeError, LeadershipLostError) as error:
        sys.exit(f"error: {error}")


async def operate(settings: Settings, profiles: ProfilesFile) -> None:
    """Watch and reconcile until a signal comes or kopf ends; if a Lease is named, only while it is held."""
    gate, heartbeat, metrics = WriteGate(), Heartbeat(), Metrics(leads=not settings.lease)
    scope = Scope(settings.namespace, settings.ray_service)
    async with (
        health_server(settings.http_port, settings.liveness_seconds, heartbeat, metrics) as port,
        connect(scope, settings.request_timeout_seconds, gate) as client,
    ):
        logger.info("Answering /healthz and /metrics at port %d.", port)
        work = partial(_work, settings, profiles, client, gate, metrics, heartbeat)
        asked = _asked_to_end()
        if settings.lease:
            lease = client.lease(settings.lease, ANSWER_WITHIN * settings.lease_seconds)
            election = Election(lease, new_identity(), settings.lease_seconds, gate, heartbeat)
            await _lead(election, work, asked, metrics)
        else:
            gate.open()
            await _first(work(), asked.wait())
        logger.info("Stopped.")


async def _lead(
    election: Election, work: Callable[[], Coroutine[Any, Any, None]], asked: asyncio.Event, metrics: Metrics
) -> None:
    """Do the work once this operator leads, and for as long as it does; raises LeadershipLostError."""
    await _first(election.win(), asked.wait())
    if not election.leads:
        return
    metrics.leads = True
    try:
        await _first(election.keep(), work(), asked.wait())
    finally:
        metrics.leads = False
        await election.release()


async def _work(
    settings: Settings,
    profiles: ProfilesFile,
    client: KubeClient,
    gate: WriteGate,
    metrics: Metrics,
    heartbeat: Heartbeat,
) -> None:
    """Watch and reconcile; no write is under way any more when it ends."""
    dashboard = DashboardClient(
        settings.serve_api_url,
        settings.serve_api_token_file,
        settings.serve_api_seconds,
        settings.behind_seconds,
    )
    usage = UsageClient(settings.usage_url, settings.serve_api_token_file, settings.usage_seconds)
    reconciler = Reconciler(settings, client, profiles, dashboard, usage, metrics, heartbeat)
    tasks = [asyncio.create_task(reconciler.run(), name="reconciler")]
    if settings.keys_secret:
        watch = AccessWatch(
            client.pods(), settings.keys_secret, settings.access_config_map, settings.pod_selector
        )
        tasks.append(asyncio.create_task(watch.run(), name="access watch"))
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
        await gate.drain(WRITES_END_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _asked_to_end() -> asyncio.Event:
    """Return what is set when the process is asked to end; kopf, once it runs, hears of it instead."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


async def _first(*parts: Coroutine[Any, Any, object]) -> None:
    """Run all `parts` until one ends, end the others, and raise what the first raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def _wait_for_access(client: KubeClient) -> None:
    """Wait until both kinds can be listed: kopf looks up only once, at its start, which kinds exist."""
    while True:
        try:
            return await client.check_access()
        except KubeError as error:
            logger.warning("Waiting: %s", error)
            await asyncio.sleep(ACCESS_RETRY_SECONDS)
