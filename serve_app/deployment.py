"""The Serve deployment of one model: loads it once, hands requests to the engine.

Ray imports this module in a fresh worker for each build, so torch and transformers are imported
inside the constructor only.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from serve_app.contract import DEPLOYMENT_OPTIONS, MODEL_DEPLOYMENT, ModelArgs, UserConfig
from serve_app.engine.base import TaskModel
from serve_app.engine.batch_engine import BatchEngine
from serve_app.http.errors import Reply, ServingError, UnexpectedError
from serve_app.loading.sources import fetch
from serve_app.protocols import VERBS, model_application
from serve_app.telemetry.startup import StartupTimer

logger = logging.getLogger("ray.serve")


@serve.deployment(name=MODEL_DEPLOYMENT, **DEPLOYMENT_OPTIONS)
@serve.ingress()
class Model:
    """One replica of a model."""

    # Serve awaits the constructor; typing knows no such thing.
    async def __init__(self, args: ModelArgs) -> None:  # type: ignore[misc]
        """Load the model; raises SourceError or ModelLoadError, whose sentence becomes the status."""
        startup = StartupTimer.of_this_worker()
        # All of this takes seconds; the replica must answer Ray's own calls meanwhile.
        with startup.phase("fetch"):
            folder = await asyncio.to_thread(fetch, args.uri, args.revision)
        with startup.phase("import"):
            task_class = await asyncio.to_thread(_task_class, args)
        with startup.phase("load"):
            model = await asyncio.to_thread(task_class, folder, args.dtype)
        self._engine = BatchEngine(args, model, UserConfig())
        with startup.phase("warm_up"):
            await self._engine.warm_up()
        self._engine.cold_start = startup.report()
        logger.info("%s from %s is ready after %s", args.name, folder, startup)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return what answers HTTP; Serve calls this once after the constructor."""
        return model_application(self._engine)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take over new user_config; Serve calls this before the first request and at each change."""
        self._engine.reconfigure(UserConfig.model_validate(user_config))

    async def check_health(self) -> None:
        """Raise if the model no longer answers; Serve replaces the replica after three failures."""
        await self._engine.check_health()

    async def call(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Answer the gateway: like POST to `verb`, errors included, but by Serve's handle."""
        try:
            return await VERBS[verb](self._engine, body, headers)
        except ServingError as error:
            return Reply.for_error(error)
        except Exception:
            logger.exception("unexpected error on %s", verb)
            return Reply.for_error(UnexpectedError())


def _task_class(args: ModelArgs) -> type[TaskModel]:
    from serve_app.tasks import task_class

    return task_class(args.task)
