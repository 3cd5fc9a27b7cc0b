"""The Serve deployment of one model: it loads the model once and passes requests to the engine.

Ray imports this module in a fresh worker for each build, so only the constructor imports torch and
transformers.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from ray import serve
from starlette.types import ASGIApp

from serve_app.access.folder import AccessFolder
from serve_app.access.front import Arrival, Front
from serve_app.contract import DEPLOYMENT_OPTIONS, MODEL_DEPLOYMENT, ModelArgs, UserConfig
from serve_app.engine.base import ModelLoadError, TaskModel
from serve_app.engine.batch_engine import BatchEngine
from serve_app.engine.records import RequestRecord, Transport
from serve_app.http.errors import ModelFailedError, Reply, ServingError
from serve_app.http.streaming import StreamedReply, StreamHead
from serve_app.loading.sources import commit_of, fetch
from serve_app.protocols import CALLS, error_reply_to_call, model_application
from serve_app.protocols.open_inference_rpc import answer_rpc
from serve_app.replica.hand_over import HandOver
from serve_app.replica.metrics import metrics_of
from serve_app.replica.shutdown import LEAD_SECONDS, grace_of_shutdown
from serve_app.replica.siblings import Siblings
from serve_app.replica.telemetry import Telemetry
from serve_app.replica.usage import UsageWriter
from serve_app.rpc.service import InferenceMethods
from serve_app.scaling import LOAD
from serve_app.telemetry.startup import StartupTimer
from serve_app.text import words

logger = logging.getLogger("ray.serve")

_SHUTDOWN_POLL_SECONDS: Final = 0.5


@serve.deployment(name=MODEL_DEPLOYMENT, **DEPLOYMENT_OPTIONS)
@serve.ingress()
class Model(InferenceMethods):
    """One replica of a model."""

    # None until the model is loaded.
    _telemetry: Telemetry | None = None

    # Serve awaits the constructor, which the type system does not allow.
    async def __init__(self, args: ModelArgs) -> None:  # type: ignore[misc]
        """Load the model. The sentence of a SourceError or ModelLoadError reaches the endpoint's status."""
        startup = StartupTimer.of_this_worker()
        # What it reserves counts while it loads, too.
        self._usage = UsageWriter.of_this_replica()
        self._usage.start()
        # These phases take seconds, and the replica must answer Ray's own calls meanwhile.
        with startup.phase("fetch"):
            folder = await asyncio.to_thread(fetch, args.uri, args.revision, args.token_secret)
        with startup.phase("import"):
            task_class = await asyncio.to_thread(_task_class, args)
        with startup.phase("load"):
            model = await asyncio.to_thread(task_class, folder, args.dtype)
        startup.split("load", "prove", model.proof_seconds)
        self._engine = BatchEngine(args, model, UserConfig())
        self._usage.observe(self._engine.observers)
        self._front = Front(args.name, AccessFolder.of_environment(), self._engine.observers)
        self._siblings = Siblings(self._front.limiter)
        replica = serve.get_replica_context().replica_tag
        self._telemetry = Telemetry(self._engine.observers, args.name, replica)
        self._engine.commit = commit_of(args.uri, folder)
        with startup.phase("warm_up"):
            await _warm_up(self._engine)
        self._engine.cold_start = startup.report()
        if (metrics := metrics_of(self._engine)) is not None:
            self._metrics = asyncio.create_task(HandOver(metrics.tallies).run())
        if self._engine.figures is not None:
            self._shutdown = asyncio.create_task(_end_streams_in_time(self._engine))
        logger.info("%s from %s is ready after %s", args.name, folder, startup)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Build the replica's ASGI app. Serve calls this once, after `__init__`."""
        return model_application(self._engine, self._front)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply the user config. Serve calls this before the first request and at each change."""
        settings = UserConfig.model_validate(user_config)
        self._engine.reconfigure(settings)
        self._front.reconfigure(settings)
        assert self._telemetry is not None
        self._telemetry.reconfigure(settings)
        if self._front.limiter.applies:
            self._siblings.watch()

    async def __del__(self) -> None:
        """Hand over what is logged and traced. Serve awaits this after the last request."""
        if self._telemetry is not None:
            # Up to some seconds, in which Serve still asks how the replica is.
            await asyncio.to_thread(self._telemetry.close)

    async def check_health(self) -> None:
        """Raise if the model does not answer. Serve replaces the replica after three failures."""
        await self._engine.check_health()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `scaling.py` decides by; an autoscaled replica is asked each second."""
        load = self._engine.load
        return {} if load is None else {LOAD: load}

    async def call(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Answer the gateway, which calls this by Serve's handle with a name in CALLS; never raises."""
        reply = await self._reply(verb, body, headers)
        return await reply.whole() if isinstance(reply, StreamedReply) else reply

    async def stream(
        self, verb: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncGenerator[Reply | StreamHead | bytes, None]:
        """Answer the gateway likewise: yield a Reply, or the head of a streamed one and then its pieces."""
        reply = await self._reply(verb, body, headers)
        if isinstance(reply, Reply):
            yield reply
            return
        try:
            yield reply.head
            async for chunk in reply.chunks:
                yield chunk
        finally:
            await reply.aclose()

    async def _reply(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply | StreamedReply:
        async def work(record: RequestRecord) -> Reply | StreamedReply:
            record.body = body
            return await CALLS[verb](self._engine, body, headers)

        try:
            return await self._front.answer(Arrival(verb, Transport.GATEWAY, headers), work)
        except ServingError as error:
            return error_reply_to_call(verb, error)

    async def answer_rpc(self, method: str, request: bytes, metadata: Mapping[str, str]) -> Reply:
        async def work(record: RequestRecord) -> Reply:
            record.body = request
            return await answer_rpc(self._engine, method, request)

        reply = await self._front.answer(Arrival(method, Transport.GRPC, metadata), work)
        assert isinstance(reply, Reply)
        return reply


async def _end_streams_in_time(engine: BatchEngine) -> None:
    """End what is still streamed, with an error, just before Serve would kill this replica."""
    while (grace := grace_of_shutdown()) is None:
        await asyncio.sleep(_SHUTDOWN_POLL_SECONDS)
    logger.info("this replica is stopped within %g seconds", grace)
    await asyncio.sleep(max(0.0, grace - LEAD_SECONDS - _SHUTDOWN_POLL_SECONDS))
    engine.end_streams()


async def _warm_up(engine: BatchEngine) -> None:
    """Answer a first text; the cause of a failure reaches the endpoint's status, not only the log."""
    try:
        await engine.warm_up()
    except ModelFailedError as error:
        cause = error.__cause__ or error
        raise ModelLoadError(f"the model fails on a first text: {words(cause)}") from error


def _task_class(args: ModelArgs) -> type[TaskModel]:
    from serve_app.tasks import task_class

    return task_class(args.task)
