"""The gateway's cache of the models that Serve reports: their names, states, and why one does not run."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from serve_app.access.policy import unknown_model
from serve_app.contract import GATEWAY_APPLICATION, UserConfig, route_prefix
from serve_app.gateway.public_reason import public_reason
from serve_app.http.errors import ModelNotReadyError

# States older than this are refreshed in the background; the request that finds them stale does not wait.
FRESH_SECONDS: Final = 1.0
# A request for an unknown model, or for one without a replica, waits for a new report unless the last one is
# so recent. So clients that ask in vain cost the controller five calls a second of each gateway at most.
REFUSED_SECONDS: Final = 0.2
# Serve's controller may be away, with the head of the cluster. Then the last known states hold.
REFRESH_SECONDS: Final = 3.0

RUNNING: Final = "RUNNING"
STOPPING: Final = "STOPPING"
# States of replicas that have a loaded model: they answer, or will in a moment.
_LOADED: Final = (RUNNING, "UPDATING", "RECOVERING", "PENDING_MIGRATION")
# No key has such a name.
NOBODY: Final = ("/",)

UNHEALTHY: Final = "UNHEALTHY"
HEALTH_CHECK_FAILED: Final = "HEALTH_CHECK_FAILED"

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class ModelState:
    """One model as Serve sees it; `status` is that of its Serve application.

    `reason` is for clients. `stopping` replicas still finish what they have begun. `recovers` says that a
    replica was lost, and that no attempt to replace it has failed.
    """

    name: str
    status: str
    replicas: int
    reason: str
    stopping: int = 0
    recovers: bool = False
    request_timeout_seconds: float = UserConfig().request_timeout_seconds
    task: str = ""
    # Names of the keys that may ask; all of them if there are none.
    allow: tuple[str, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether requests may be sent. A failed update leaves the replicas of the last good version."""
        return self.status == RUNNING or self.replicas > 0

    def as_json(self) -> dict[str, Any]:
        """Return the model's member of `GET /v2/models`."""
        return {
            "name": self.name,
            "state": self.status,
            "ready": self.answers,
            "reason": self.reason,
            "url": route_prefix(self.name),
            "task": self.task,
            "replicas": self.replicas,
        }


def read_states(applications: Mapping[str, Any]) -> dict[str, ModelState]:
    """Return the state of each model among the applications of Serve's answer about all of them."""
    return {
        name: _read_state(name, application)
        for name, application in applications.items()
        if name != GATEWAY_APPLICATION
    }


def _read_state(name: str, application: Mapping[str, Any]) -> ModelState:
    deployments = list(application["deployments"].values())
    replicas = Counter(
        _word(replica["state"]) for deployment in deployments for replica in deployment["replicas"]
    )
    status = _word(application["status"])
    reason = ""
    loaded = sum(replicas[state] for state in _LOADED)
    if status != RUNNING or not loaded:
        parts = (deployment["message"] for deployment in deployments)
        reason = public_reason(status, parts, application["message"])
    settings = [_user_config(deployment) for deployment in deployments]
    limits = [each["request_timeout_seconds"] for each in settings if "request_timeout_seconds" in each]
    recovers = status == UNHEALTHY and all(
        _word(deployment["status_trigger"]) == HEALTH_CHECK_FAILED for deployment in deployments
    )
    return ModelState(
        name,
        status,
        loaded,
        reason,
        replicas[STOPPING],
        recovers,
        limits[0] if limits else UserConfig().request_timeout_seconds,
        _task(application),
        _allow(application, settings),
    )


def _allow(application: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the keys that may ask; a model of which Serve says nothing yet is nobody's."""
    if not settings:
        # It has no deployment before its first build has ended, and its config says the same.
        config = application.get("deployed_app_config")
        if not config:
            return NOBODY
        settings = [deployment.get("user_config") or {} for deployment in config.get("deployments", ())]
    return tuple(key for each in settings for key in each.get("allow", ()))


def _task(application: Mapping[str, Any]) -> str:
    """Return the task that the config gave the application; empty if Serve does not know the config."""
    config = application.get("deployed_app_config") or {}
    return str((config.get("args") or {}).get("task", ""))


def _word(value: Any) -> str:
    """Return a state as text; Ray gives members of enumerations."""
    return str(value.value if isinstance(value, Enum) else value)


def _user_config(deployment: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of the endpoint that are not the defaults."""
    settings: Mapping[str, Any] = deployment.get("deployment_config", {}).get("user_config") or {}
    return settings


class ModelIndex:
    """The latest states. They are refreshed in the background, and only while requests arrive."""

    def __init__(self, fetch_applications: Callable[[], Mapping[str, Any]]) -> None:
        """`fetch_applications` may block; it runs in a thread."""
        self._fetch_applications = fetch_applications
        self._states: dict[str, ModelState] = {}
        self._refreshed = self._attempted = -math.inf
        self._refreshing: asyncio.Task[bool] | None = None

    async def resolve(self, name: str, *, or_recovers: bool = False) -> ModelState:
        """Return the state of the model `name`, which answers, or for which it is worthwhile to wait.

        Raises UnknownModelError, or ModelNotReadyError with the cause.
        """
        state = await self.known(name)
        if not state.answers and not (or_recovers and state.recovers):
            because = f": {state.reason}" if state.reason else ""
            raise ModelNotReadyError(f"{name} is {state.status}{because}", state=state.status)
        return state

    async def known(self, name: str) -> ModelState:
        """Return the state of the model `name`, whether it answers or not; raise UnknownModelError."""
        self._refresh_if_stale()
        state = self._states.get(name)
        if (state is None or not state.answers) and self._seconds_since_attempt() > REFUSED_SECONDS:
            # A request is never refused because of a state that is older.
            await self._refresh_or_keep()
            state = self._states.get(name)
        if state is None:
            raise unknown_model(name)
        return state

    @property
    def last(self) -> list[ModelState]:
        """The states of all models as Serve has reported them last, sorted by name."""
        return [self._states[name] for name in sorted(self._states)]

    async def check_waiting(self, name: str) -> None:
        """Raise as `resolve` does if a request that `name` has not answered yet is waiting in vain."""
        try:
            await self.resolve(name, or_recovers=True)
        except ModelNotReadyError:
            # A replica that stops may have it.
            if name not in self._states or not self._states[name].stopping:
                raise

    async def all(self) -> list[ModelState]:
        """Return the fresh states of all models, sorted by name."""
        await self.refresh()
        return self.last

    async def refresh(self) -> None:
        """Ask Serve now; concurrent callers share one call.

        Raises ModelNotReadyError if Serve does not answer in time.
        """
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._fetch())
        try:
            answered = await asyncio.wait_for(asyncio.shield(self._refreshing), REFRESH_SECONDS)
        except TimeoutError:
            answered = False
        if not answered:
            raise ModelNotReadyError("Ray Serve does not say which models there are")

    async def _refresh_or_keep(self) -> None:
        """Ask Serve now; if it does not answer, what it said last holds."""
        try:
            await self.refresh()
        except ModelNotReadyError:
            if not self._states:
                raise

    def _refresh_if_stale(self) -> None:
        if self._refreshing is None and time.monotonic() - self._refreshed > FRESH_SECONDS:
            self._refreshing = asyncio.create_task(self._fetch())

    def _seconds_since_attempt(self) -> float:
        """Return how many seconds ago Serve has reported, or failed to."""
        return time.monotonic() - self._attempted

    async def _fetch(self) -> bool:
        """Replace the states; return whether Serve answered."""
        try:
            self._states = read_states(await asyncio.to_thread(self._fetch_applications))
            self._refreshed = time.monotonic()
        except Exception:
            logger.exception("Ray Serve does not report its applications")
            return False
        else:
            return True
        finally:
            self._refreshing = None
            # Before the first report, nobody can be told that there is no such model.
            if self._refreshed > -math.inf:
                self._attempted = time.monotonic()
