"""A stand-in for Ray Serve on one RayCluster: takes documents and moves its applications, cycle by cycle.

What it does as `ray/serve` 2.60 does (`controller.py`, `application_state.py`, `deployment_state.py`):
- a document is held against Ray's own ServeDeploySchema, and a bad one is refused as a whole;
- applications that a document no longer names are deleted, over one cycle;
- changed `args` build the application anew; another change of its entry is a light update;
- an application whose build failed is built anew by each document, even by the same one;
- each status has the message that Serve writes.
Where an application ends up is scripted: real models are the business of tests/serve.
"""

import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

# Ray's own code; none of it is ours to change.
with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from ray.serve.schema import ServeDeploySchema

# The first of them only brings the news.
_DELETING_CYCLES = 2

_TRACEBACK = (
    "Traceback (most recent call last):\n"
    '  File "/app/serve_app/deployment.py", line 71, in __init__\n'
    "    self._engine = load(args)\n"
)


class RefusedDocumentError(Exception):
    """The document is not one that Serve takes; the message is the body of its answer 400."""


@dataclass(frozen=True)
class Outcome:
    """Where an application ends up after so many cycles; None for ever stays DEPLOYING."""

    status: str | None = "RUNNING"
    message: str = ""
    deployment_status: str = "HEALTHY"
    deployment_message: str = ""
    after: int = 2
    # A failed build leaves nothing behind, so that each document starts another one.
    built: bool = True


def runs(after: int = 2) -> Outcome:
    """Return the outcome of an application that comes up."""
    return Outcome(after=after)


def fails_to_start(error: str, after: int = 2) -> Outcome:
    """Return the outcome of a model whose constructor raises `error`."""
    message = (
        "The deployment failed to start 3 times in a row. This may be due to a problem with its "
        "constructor or initial health check failing. See controller logs for details. Error:\n"
        f"{_TRACEBACK}{error}\n"
    )
    failed = "Failed to update the deployments ['Model']."
    return Outcome("DEPLOY_FAILED", failed, "DEPLOY_FAILED", message, after)


def fails_to_build(name: str, error: str, after: int = 2) -> Outcome:
    """Return the outcome of an application whose builder raises `error`."""
    message = f"Deploying app '{name}' failed with exception:\n{_TRACEBACK}{error}\n"
    return Outcome("DEPLOY_FAILED", message, after=after, built=False)


def waits(name: str, required: Mapping[str, float], available: Mapping[str, float]) -> Outcome:
    """Return the outcome of a replica that finds no place."""
    message = (
        f"Deployment 'Model' in application '{name}' has 1 replicas that have taken more than 30s to be "
        "scheduled. This may be due to waiting for the cluster to auto-scale or for a runtime environment "
        f"to be installed. Resources required for each replica: {json.dumps(required)}, total resources "
        f"available: {json.dumps(available)}. Use `ray status` for more details."
    )
    return Outcome(None, "", "UPDATING", message)


def sick(after: int = 2) -> Outcome:
    """Return the outcome of an application whose replicas fail their health checks."""
    message = "A replica failed its health check."
    return Outcome("UNHEALTHY", "The deployments ['Model'] are UNHEALTHY.", "UNHEALTHY", message, after)


@dataclass
class Application:
    """One application: its entry in the document and how far it is."""

    entry: dict[str, Any]
    outcome: Outcome
    left: int
    deleting: bool = False

    def deploy(self, entry: dict[str, Any], outcome: Outcome) -> None:
        """Take the entry of another document."""
        rebuilt = entry["args"] != self.entry["args"] or not self.outcome.built
        # Serve's own loop is ten times as fast as KubeRay's, so that what stays shows no change.
        self.left = outcome.after if rebuilt else int(entry != self.entry)
        self.entry, self.outcome, self.deleting = entry, outcome, False

    def delete(self) -> None:
        """Begin to go away."""
        if not self.deleting:
            self.deleting, self.left = True, _DELETING_CYCLES

    def details(self, *, has_replicas: bool) -> dict[str, Any]:
        """Return its state as the dashboard answers it."""
        report = self.report()
        runs = report["status"] == "RUNNING" and has_replicas
        deployments = report.get("serveDeploymentStatuses", {})
        return {
            "status": report["status"],
            "message": report.get("message", ""),
            "deployed_app_config": None if self.deleting else self.entry,
            "deployments": {
                name: {
                    "message": deployment.get("message", ""),
                    "replicas": [{"state": "RUNNING"}] * (_replicas(self.entry) if runs else 0),
                }
                for name, deployment in deployments.items()
            },
        }

    def report(self) -> dict[str, Any]:
        """Return its state as KubeRay writes it to a RayService."""
        if self.deleting:
            return {"status": "DELETING"}
        outcome = self.outcome
        arrived = self.left == 0 and outcome.status is not None
        deployment = {
            "status": outcome.deployment_status if arrived else "UPDATING",
            "message": outcome.deployment_message if self.left == 0 else "",
        }
        report = {
            "status": outcome.status if arrived else "DEPLOYING",
            "message": outcome.message if arrived else "",
        }
        if not (arrived and not outcome.built):
            name = self.entry["deployments"][0]["name"]
            report["serveDeploymentStatuses"] = {name: _without_empty(deployment)}
        return _without_empty(report)


def _replicas(entry: Mapping[str, Any]) -> int:
    deployment = entry["deployments"][0]
    scaling = deployment.get("autoscaling_config")
    return int(scaling["min_replicas"] if scaling else deployment["num_replicas"])


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    # As Go's omitempty does.
    return {key: value for key, value in fields.items() if value}


@dataclass
class Serve:
    """Serve's controller on one RayCluster; `outcomes` is by the model's uri, or else by the application."""

    outcomes: Mapping[str, Outcome]
    # Models whose entry passes the schema and makes Serve answer 400 to the whole document all the same.
    poison: Collection[str] = ()
    applications: dict[str, Application] = field(default_factory=dict)

    def put(self, document: Any) -> None:
        """Make the applications those of `document`; raises RefusedDocumentError."""
        try:
            ServeDeploySchema.model_validate(document)
        except ValidationError as error:
            raise RefusedDocumentError(repr(error)) from error
        entries = {entry["name"]: entry for entry in document["applications"]}
        for name, entry in entries.items():
            if entry["args"].get("uri") in self.poison:
                raise RefusedDocumentError(f"ray::ServeController.apply_config() failed for {name!r}")
        for name, entry in entries.items():
            outcome = self.outcome(entry)
            if name in self.applications:
                self.applications[name].deploy(entry, outcome)
            else:
                self.applications[name] = Application(entry, outcome, outcome.after)
        for name in self.applications.keys() - entries.keys():
            self.applications[name].delete()

    def outcome(self, entry: Mapping[str, Any]) -> Outcome:
        """Return where the application of `entry` is to end up."""
        uri = entry["args"].get("uri", "")
        return self.outcomes.get(uri) or self.outcomes.get(entry["name"]) or runs()

    def details(self, lost_replicas: Collection[str]) -> dict[str, Any]:
        """Return what the dashboard answers to `GET /api/serve/applications/`."""
        applications = dict(self.applications)
        return {
            "applications": {
                name: application.details(has_replicas=name not in lost_replicas)
                for name, application in applications.items()
            }
        }

    def tick(self) -> None:
        """Let a cycle pass."""
        for application in self.applications.values():
            application.left = max(0, application.left - 1)
        self.applications = {
            name: application
            for name, application in self.applications.items()
            if application.left or not application.deleting
        }

    def report(self) -> dict[str, Any]:
        """Return the state of all applications as KubeRay writes it to a RayService."""
        return {name: application.report() for name, application in self.applications.items()}
