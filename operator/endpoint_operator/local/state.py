"""Parse Ray Serve's report into the state of each endpoint; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from serve_app.text import application_cause

# What Serve says of a replica that Ray finds no place for. The rest is about clusters and their autoscaler.
_UNSCHEDULED: Final = "to be scheduled"
_NO_PLACE: Final = (
    "no place is free on this machine; remove another endpoint, or lower spec.resources or minReplicas"
)


# What Serve says of a replica that has started for 30 seconds, which a large model takes.
_SLOW: Final = "to initialize"
# What a replica does until it answers. Ray tells its process id once it has a process.
_WAITING: Final = "waiting for a place and a process"
_STARTING: Final = "a process fetches and loads the model"


class State(StrEnum):
    """The state of an endpoint in one word for people."""

    LOADING = "Loading"
    """No replica answers yet."""
    READY = "Ready"
    """The version of the manifest answers."""
    UPDATING = "Updating"
    """The previous version answers while a new one loads."""
    DEGRADED = "Degraded"
    """The previous version answers because the new one failed, or a replica is unhealthy."""
    FAILED = "Failed"
    """Nothing answers, until the manifest or the model changes."""
    SUSPENDED = "Suspended"
    """The manifest says `suspend: true`."""
    REJECTED = "Rejected"
    """It was never given to Ray."""


@dataclass(frozen=True)
class EndpointState:
    """The state of one endpoint, the number of replicas that answer, and the cause of a failure.

    `phase` says how far the replica is that is farthest on its way; empty if none is.
    """

    name: str
    state: State
    ready_replicas: int = 0
    cause: str = ""
    phase: str = ""

    @property
    def settled(self) -> bool:
        """Whether the state stays as it is without a change of the manifest."""
        return self.state not in (State.LOADING, State.UPDATING)


def read_state(name: str, application: Mapping[str, Any] | None) -> EndpointState:
    """Return the state of `name` from its entry in Serve's REST answer, which is None before there is one."""
    if application is None:
        return EndpointState(name, State.LOADING)
    deployments = application.get("deployments", {}).values()
    ready = sum(
        replica.get("state") == "RUNNING" for deployment in deployments for replica in deployment["replicas"]
    )
    status = application["status"]
    if status == "RUNNING":
        return EndpointState(name, State.READY, ready)
    cause = application_cause(
        (deployment.get("message", "") for deployment in deployments), application.get("message", "")
    )
    if _UNSCHEDULED in cause:
        cause = _NO_PLACE
    if status == "DEPLOY_FAILED":
        return EndpointState(name, State.DEGRADED if ready else State.FAILED, ready, cause)
    phase = _phase(deployments)
    if _SLOW in cause and phase:
        cause = ""
    if status == "UNHEALTHY":
        # Serve replaces an unhealthy replica.
        return EndpointState(name, State.DEGRADED if ready else State.LOADING, ready, cause, phase)
    return EndpointState(name, State.UPDATING if ready else State.LOADING, ready, cause, phase)


def _phase(deployments: Iterable[Mapping[str, Any]]) -> str:
    starting = [
        replica
        for deployment in deployments
        for replica in deployment["replicas"]
        if replica.get("state") == "STARTING"
    ]
    if not starting:
        return ""
    return _STARTING if any(replica.get("pid") for replica in starting) else _WAITING
