"""A ModelEndpoint's status as frozen models: conditions, their reasons, and the operator's records.

The operator stores nothing anywhere else. After a restart it reads from here how far the rollout of the
spec's version is, and which versions have run.
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


# The observed generation of an object that the operator has not seen.
UNSEEN: Final = -1

# As metav1.Condition says it.
CONDITION_TYPE_PATTERN: Final = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
)

# Longer than an entry can be, so that a good version can always be stored.
LONGEST_APPLICATION: Final = 65_536

_OUR_TYPES: Final = frozenset(ConditionType)

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
    SOURCE_NOT_ALLOWED = "SourceNotAllowed"
    """The model is to come from a source, or with a token, that the chart does not list."""
    SERVE_CONFIG_FULL = "ServeConfigFull"
    """The Serve config has no room for another endpoint."""
    REJECTED_BY_RAY = "RejectedByRay"
    """Ray rejected the whole Serve config because of this version."""
    INTERNAL_ERROR = "InternalError"
    """The operator could not decide about this endpoint because of an error of its own."""
    QUARANTINED = "Quarantined"
    """Ray did not accept a Serve config with several new versions; the operator tries smaller groups."""
    WAITING_FOR_GATEWAY = "WaitingForGateway"
    """No Ray cluster serves, so the gateway comes first; models are added once it runs."""
    DEPLOYING = "Deploying"
    """Ray builds the application, loads the model, or replaces an older version."""
    UNSCHEDULABLE = "Unschedulable"
    """A replica cannot be scheduled: no node has what it asks for."""
    DEPLOY_FAILED = "DeployFailed"
    """Ray gave up on the version; the operator deploys it again, or rolls it back, soon."""
    UNHEALTHY = "Unhealthy"
    """Replicas fail their health checks, and Ray replaces them."""
    NO_READY_REPLICA = "NoReadyReplica"
    """Ray runs the application, but none of its replicas is ready."""
    ROLLED_BACK = "RolledBack"
    """The version failed, and an earlier good version is in the Serve config until it is tried again."""
    WITHDRAWN = "Withdrawn"
    """The version failed, has never run, and has no good version to go back to; it is tried again later."""
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
    """The conditions of a reason: Ready, and whether kstatus calls it in progress or failed.

    Without a Ready condition, kstatus calls an object current: there is nothing to wait for.
    """

    ready: ConditionStatus | None
    reconciling: bool = False
    stalled: bool = False


_IN_PROGRESS: Final = Meaning("False", reconciling=True)
_FAILED: Final = Meaning("False", stalled=True)
_UNKNOWN: Final = Meaning("Unknown", reconciling=True)

REASONS: Final[dict[Reason, Meaning]] = {
    Reason.SERVING: Meaning("True"),
    Reason.SUSPENDED: Meaning(None),
    Reason.INVALID_SPEC: _FAILED,
    Reason.PROFILE_NOT_FOUND: _FAILED,
    Reason.EXCEEDS_PROFILE: _FAILED,
    Reason.SOURCE_NOT_ALLOWED: _FAILED,
    Reason.SERVE_CONFIG_FULL: _FAILED,
    Reason.REJECTED_BY_RAY: _FAILED,
    Reason.INTERNAL_ERROR: _FAILED,
    Reason.QUARANTINED: _IN_PROGRESS,
    Reason.WAITING_FOR_GATEWAY: _IN_PROGRESS,
    Reason.DEPLOYING: _IN_PROGRESS,
    # The autoscaler may still add a node, but usually somebody has to act.
    Reason.UNSCHEDULABLE: _FAILED,
    Reason.DEPLOY_FAILED: _IN_PROGRESS,
    Reason.UNHEALTHY: _IN_PROGRESS,
    Reason.NO_READY_REPLICA: _IN_PROGRESS,
    Reason.ROLLED_BACK: _FAILED,
    Reason.WITHDRAWN: _FAILED,
    Reason.APPLICATION_MISSING: _UNKNOWN,
    Reason.RAY_SERVICE_NOT_FOUND: _IN_PROGRESS,
    Reason.RAY_SERVICE_SUSPENDED: _IN_PROGRESS,
    Reason.RAY_SERVICE_NOT_READY: _IN_PROGRESS,
    Reason.RAY_SERVICE_UPGRADING: _UNKNOWN,
    Reason.RAY_SERVICE_STATUS_STALE: _UNKNOWN,
}

# Reasons that say that the spec asks for what cannot be, or for what Ray does not take.
REFUSALS: Final = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.PROFILE_NOT_FOUND,
        Reason.EXCEEDS_PROFILE,
        Reason.SOURCE_NOT_ALLOWED,
        Reason.SERVE_CONFIG_FULL,
        Reason.REJECTED_BY_RAY,
    }
)


# Reasons to leave a version out that say nothing against it: others wait for it. It is back once they do not.
STEPPED_ASIDE: Final = frozenset({Reason.RAY_SERVICE_UPGRADING, Reason.RAY_SERVICE_NOT_READY})


class StatusModel(ApiModel):
    """A part of the status; members that another version of the operator has added are ignored."""

    model_config = ConfigDict(extra="ignore", validate_by_name=True, validate_by_alias=True)


class Condition(StatusModel):
    """One observation about the endpoint (metav1.Condition); others may add conditions of their own types."""

    type: str = Field(max_length=316, pattern=CONDITION_TYPE_PATTERN)
    status: ConditionStatus
    reason: str = Field(max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    message: str = Field(default="", max_length=32_768)
    observed_generation: int = Field(default=0, ge=0)
    last_transition_time: str = Field(max_length=64, json_schema_extra={"format": "date-time"})


class GoodVersion(StatusModel):
    """A version that ran."""

    generation: int = Field(default=0, ge=0, description="Generation of the spec.")
    application: str = Field(
        default="", max_length=LONGEST_APPLICATION, description="Its entry in the Serve config."
    )


class RolloutPhase(StrEnum):
    """How far the rollout of a version is."""

    NEW = "New"
    """It is to be handed to Ray, or Ray has not said yet that it has it."""
    SETTLING = "Settling"
    """Ray has it, and it has not run since."""
    PROVEN = "Proven"
    """It has run."""
    FAILING = "Failing"
    """Ray has given it up; it is left alone until a deadline, because it may still recover."""
    BACKING_OFF = "BackingOff"
    """It is left out of the Serve config until it is tried again."""
    QUARANTINED = "Quarantined"
    """Ray did not accept a Serve config that it was in; it is tried again in a smaller group."""


class Rollout(StatusModel):
    """The rollout of the version that the spec describes."""

    fingerprint: str = Field(default="", max_length=64, description="Of its entry in the Serve config.")
    generation: int = Field(default=0, ge=0, description="Generation of the spec.")
    phase: RolloutPhase = Field(default=RolloutPhase.NEW, strict=False)
    attempts: int = Field(default=0, ge=0, description="Attempts that failed since it last ran.")
    rejections: int = Field(
        default=0, ge=0, description="Serve configs with it that Ray did not accept, one after another."
    )
    failed_fallbacks: int = Field(
        default=0, ge=0, description="Good versions that failed in its place since the last attempt."
    )
    last_failure_time: str = Field(default="", max_length=64, description="When the last attempt failed.")
    next_attempt_time: str = Field(default="", max_length=64, description="When it is tried again.")
    reason: str = Field(default="", max_length=64, description="Why it is left out.")
    message: str = Field(default="", max_length=1024)

    @property
    def has_failed(self) -> bool:
        """Whether the version is left out because it failed."""
        return self.phase is RolloutPhase.BACKING_OFF and self.reason not in STEPPED_ASIDE


class Usage(StatusModel):
    """What the endpoint has used since the object was created, as sums over its replicas."""

    requests: int = Field(default=0, ge=0, description="Without refusals and errors of the server.")
    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0, description="Tokens that were generated.")
    compute_seconds: float = Field(default=0, ge=0, description="In which a replica ran the model.")
    replica_seconds: float = Field(default=0, ge=0, description="In which there was a replica.")
    idle_share: float | None = Field(
        default=None, ge=0, le=1, description="Part of the replicas' seconds in which none ran the model."
    )
    memory_share: float | None = Field(
        default=None, ge=0, le=1, description="Part of a worker's memory that one replica reserves."
    )
    cost: float | None = Field(
        default=None,
        ge=0,
        description="The replicas' seconds at the price of their profile, for their share of a worker.",
    )
    since: str = Field(default="", max_length=64, description="Begin of the first minute that is in it.")
    until: str = Field(default="", max_length=64, description="End of the last minute that is in it.")


class ModelEndpointStatus(StatusModel):
    """What the operator has seen."""

    observed_generation: int = Field(default=UNSEEN, ge=UNSEEN)
    conditions: list[Condition] = Field(default_factory=list, max_length=32)
    url: str = Field(default="", max_length=1024)
    # None while the numbers are not known.
    replicas: int | None = Field(default=None, ge=0)
    ready_replicas: int | None = Field(default=None, ge=0)
    profile: str = Field(default="", max_length=63)
    application: str = Field(default="", max_length=40)
    last_error: str = Field(default="", max_length=1024)
    last_good: GoodVersion | None = None
    previous_good: GoodVersion | None = None
    rollout: Rollout | None = None
    usage: Usage | None = None

    @property
    def reason(self) -> str:
        """The reason of its state, which is that of Reconciling; empty before there is one."""
        state = self.condition(ConditionType.RECONCILING)
        return state.reason if state else ""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of a type; None if there is none."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


def parse_status(document: Any) -> ModelEndpointStatus:
    """Parse the status of a decoded object; what cannot be parsed, and conditions of others, are left out."""
    if not isinstance(document, dict):
        return ModelEndpointStatus()
    ours = dict(document)
    if isinstance(ours.get("conditions"), list):
        ours["conditions"] = [condition for condition in ours["conditions"] if _is_ours(condition)]
    try:
        return ModelEndpointStatus.model_validate(ours)
    except ValidationError:
        parts = {key: value for key, value in ours.items() if _can_be_parsed(key, value)}
        return ModelEndpointStatus.model_validate(parts)


def _can_be_parsed(key: str, value: Any) -> bool:
    try:
        ModelEndpointStatus.model_validate({key: value})
    except ValidationError:
        return False
    return True


def _is_ours(condition: Any) -> bool:
    try:
        return Condition.model_validate(condition).type in _OUR_TYPES
    except ValidationError:
        return False
