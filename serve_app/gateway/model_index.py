"""What the gateway knows of the models: their names, states and causes, as Serve reports them."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from serve_app.contract import GATEWAY_APPLICATION, route_prefix
from serve_app.http.errors import ModelNotReadyError, UnknownModelError
from serve_app.text import application_cause, quoted

# Reports older than this are renewed; the request that notices does not wait for it.
FRESH_SECONDS: Final = 1.0

RUNNING: Final = "RUNNING"

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class ModelReport:
    """One model as Serve sees it; `state` is Serve's application status."""

    name: str
    state: str
    replicas: int
    reason: str

    @property
    def answers(self) -> bool:
        """Whether requests may be sent: a failed update leaves the replicas of the last good one."""
        return self.state == RUNNING or self.replicas > 0

    def as_json(self) -> dict[str, Any]:
        """Return the report for `GET /v2/models`."""
        return {
            "name": self.name,
            "state": self.state,
            "ready": self.answers,
            "reason": self.reason,
            "url": route_prefix(self.name),
        }


def read_reports(applications: Mapping[str, Any]) -> dict[str, ModelReport]:
    """Return a report for each model among `applications`, those of `ray.serve.status()`."""
    reports = {}
    for name, application in applications.items():
        if name == GATEWAY_APPLICATION:
            continue
        deployments = list(application.deployments.values())
        running = sum(deployment.replica_states.get(RUNNING, 0) for deployment in deployments)
        state = str(application.status.value)
        reason = ""
        if state != RUNNING:
            parts = (deployment.message for deployment in deployments)
            reason = application_cause(parts, application.message)
        reports[name] = ModelReport(name, state, running, reason)
    return reports


class Directory:
    """The latest reports, renewed in the background while requests come and not otherwise."""

    def __init__(self, fetch_applications: Callable[[], Mapping[str, Any]]) -> None:
        """`fetch_applications` may block; it runs in a thread."""
        self._fetch_applications = fetch_applications
        self._reports: dict[str, ModelReport] = {}
        self._renewed = -FRESH_SECONDS
        self._renewing: asyncio.Task[bool] | None = None

    async def find(self, name: str) -> ModelReport:
        """Return the report of a model that answers.

        Raises UnknownModelError with the known names, or ModelNotReadyError with the cause.
        """
        self._renew_if_stale()
        report = self._reports.get(name)
        if report is None or not report.answers:
            # Nobody is turned away on the word of an old report.
            await self.renew()
            report = self._reports.get(name)
        if report is None:
            known = sorted(self._reports)
            shown = ", ".join(known) if known else "there are none"
            raise UnknownModelError(f"no model is named {quoted(name)}; known models: {shown}", models=known)
        if not report.answers:
            because = f": {report.reason}" if report.reason else ""
            raise ModelNotReadyError(f"{name} is {report.state}{because}", state=report.state)
        return report

    async def all(self) -> list[ModelReport]:
        """Return the reports of all models, by name."""
        await self.renew()
        return [self._reports[name] for name in sorted(self._reports)]

    async def renew(self) -> None:
        """Ask Serve now; concurrent callers share one question.

        Raises ModelNotReadyError if Serve does not answer.
        """
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._fetch())
        if not await asyncio.shield(self._renewing):
            raise ModelNotReadyError("Ray Serve does not say which models there are")

    def _renew_if_stale(self) -> None:
        if self._renewing is None and time.monotonic() - self._renewed > FRESH_SECONDS:
            self._renewing = asyncio.create_task(self._fetch())

    async def _fetch(self) -> bool:
        """Replace the reports; return whether Serve answered."""
        try:
            self._reports = read_reports(await asyncio.to_thread(self._fetch_applications))
            self._renewed = time.monotonic()
        except Exception:
            logger.exception("Ray Serve does not report its applications")
            return False
        else:
            return True
        finally:
            self._renewing = None
