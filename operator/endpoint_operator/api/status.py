"""A ModelEndpoint's status as frozen models: conditions, their reasons, and the operator's records.

The operator stores nothing anywhere else. After a restart it reads the last version that ran and the version
that failed from here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from endpoint_operator.api.types import ApiModel


class ConditionType(StrEnum):
    """Condition types of the status, after kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    ACCEPTED = "Accepted"
    UPGRADE_BLOCKED = "UpgradeBlocked"
    """Only there, and True, while this endpoint keeps KubeRay from moving to a new Ray cluster."""


ConditionStatus = Literal["True", "False", "Unknown"]


class Reason(StrEnum):
    """Reasons of conditions; docs/conditions.md says what to do about each."""

    SERVING = "Serving"
    """The version that the spec describes answers requests."""
    SUSPENDED = "Suspended"
    """The spec says `suspend: true`."""
    ACCEPTED = "Accepted"
    """The spec is valid and part of the Serve config."""
    INVALID_SPEC = "InvalidSpec"
    """The spec breaks a rule."""
    PROFILE_NOT_FOUND = "ProfileNotFound"
    """There is no resource profile of the name that the spec gives."""
    EXCEEDS_PROFILE = "ExceedsProfile"
    """A replica asks for more than a worker of its profile has."""
    SERVE_CONFIG_FULL = "ServeConfigFull"
    """The Serve config has no room for another endpoint."""
    REJECTED_BY_RAY = "RejectedByRay"
    """Ray rejected the whole Serve config because of this version."""
    QUARANTINED = "Quarantined"
    """Ray did not accept a Serve config with several new versions; the operator tries smaller groups."""
    WAITING_FOR_GATEWAY = "WaitingForGateway"
    """The RayService has never run; models are added once the gateway runs."""
    DEPLOYING = "Deploying"
    """Ray builds the application, loads the model, or replaces an older version."""
    UNSCHEDULABLE = "Unschedulable"
    """A replica cannot be scheduled: no node has what it asks for."""
    DEPLOY_FAILED = "DeployFailed"
    """Ray gave up on the version; the operator rolls it back soon."""
    UNHEALTHY = "Unhealthy"
    """Replicas fail their health checks, and Ray replaces them."""
    ROLLED_BACK = "RolledBack"
    """The version failed, and the last good version serves again."""
    WITHDRAWN = "Withdrawn"
    """The version failed, and there is no good version to go back to."""
    APPLICATION_MISSING = "ApplicationMissing"
    """Ray reports no application for the endpoint, although the Serve config has one."""
    RAY_SERVICE_NOT_FOUND = "RayServiceNotFound"
    """The RayService does not exist."""
    RAY_SERVICE_SUSPENDED = "RayServiceSuspended"
    """The RayService is suspended."""
    RAY_SERVICE_NOT_READY = "RayServiceNotReady"
    """The model runs, but the RayService's Kubernetes Service has no endpoints."""
    RAY_SERVICE_UPGRADING = "RayServiceUpgrading"
    """KubeRay moves the RayService to a new Ray cluster and does not report on the old one."""
    RAY_SERVICE_STATUS_STALE = "RayServiceStatusStale"
    """KubeRay has stopped updating the RayService's status."""


@dataclass(frozen=True)
class Meaning:
    """The conditions of a reason: Ready, and whether kstatus calls it in progress or failed."""

    ready: ConditionStatus
    reconciling: bool = False
    stalled: bool = False


_IN_PROGRESS: Final = Meaning("False", reconciling=True)
_FAILED: Final = Meaning("False", stalled=True)
_UNKNOWN: Final = Meaning("Unknown", reconciling=True)

REASONS: Final[dict[Reason, Meaning]] = {
    Reason.SERVING: Meaning("True"),
    Reason.SUSPENDED: Meaning("False"),
    Reason.INVALID_SPEC: _FAILED,
    Reason.PROFILE_NOT_FOUND: _FAILED,
    Reason.EXCEEDS_PROFILE: _FAILED,
    Reason.SERVE_CONFIG_FULL: _FAILED,
    Reason.REJECTED_BY_RAY: _FAILED,
    Reason.QUARANTINED: _IN_PROGRESS,
    Reason.WAITING_FOR_GATEWAY: _IN_PROGRESS,
    Reason.DEPLOYING: _IN_PROGRESS,
    # The autoscaler may still add a node, but usually somebody has to act.
    Reason.UNSCHEDULABLE: _FAILED,
    Reason.DEPLOY_FAILED: _IN_PROGRESS,
    Reason.UNHEALTHY: _IN_PROGRESS,
    Reason.ROLLED_BACK: _FAILED,
    Reason.WITHDRAWN: _FAILED,
    Reason.APPLICATION_MISSING: _UNKNOWN,
    Reason.RAY_SERVICE_NOT_FOUND: _IN_PROGRESS,
    Reason.RAY_SERVICE_SUSPENDED: _IN_PROGRESS,
    Reason.RAY_SERVICE_NOT_READY: _IN_PROGRESS,
    Reason.RAY_SERVICE_UPGRADING: _UNKNOWN,
    Reason.RAY_SERVICE_STATUS_STALE: _UNKNOWN,
}

# Reasons of Accepted being False: the version that the spec describes is not in the Serve config.
REFUSALS: Final = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.PROFILE_NOT_FOUND,
        Reason.EXCEEDS_PROFILE,
        Reason.SERVE_CONFIG_FULL,
        Reason.REJECTED_BY_RAY,
    }
)


class StatusModel(ApiModel):
    """A part of the status; members that another version of the operator has added are ignored."""

    model_config = ConfigDict(extra="ignore", validate_by_name=True, validate_by_alias=True)


class Condition(StatusModel):
    """One observation about the endpoint (metav1.Condition)."""

    type: ConditionType = Field(strict=False)
    status: ConditionStatus
    reason: str = Field(max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    message: str = Field(default="", max_length=32_768)
    observed_generation: int = Field(default=0, ge=0)
    last_transition_time: str = Field(max_length=64, json_schema_extra={"format": "date-time"})


class LastGood(StatusModel):
    """The last version that ran."""

    generation: int = Field(default=0, ge=0, description="Generation of the spec.")
    application: str = Field(default="", max_length=131_072, description="Its entry in the Serve config.")


class Refused(StatusModel):
    """The version that was taken back; the same one is not tried again."""

    generation: int = Field(default=0, ge=0, description="Generation of the spec.")
    fingerprint: str = Field(default="", max_length=64, description="Of its entry in the Serve config.")
    reason: str = Field(default="", max_length=64)
    message: str = Field(default="", max_length=1024)


class ModelEndpointStatus(StatusModel):
    """What the operator has seen."""

    observed_generation: int = Field(default=0, ge=0)
    conditions: list[Condition] = Field(default_factory=list, max_length=8)
    url: str = Field(default="", max_length=1024)
    # None while the numbers are not known.
    replicas: int | None = Field(default=None, ge=0)
    ready_replicas: int | None = Field(default=None, ge=0)
    profile: str = Field(default="", max_length=63)
    application: str = Field(default="", max_length=40)
    last_error: str = Field(default="", max_length=1024)
    last_good: LastGood | None = None
    refused: Refused | None = None

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of a type; None if there is none."""
        return next((condition for condition in self.conditions if condition.type is kind), None)


def parse_status(document: Any) -> ModelEndpointStatus:
    """Parse the status of a decoded object; return an empty one if it is missing or cannot be parsed."""
    try:
        return ModelEndpointStatus.model_validate(document or {})
    except ValidationError:
        return ModelEndpointStatus()
