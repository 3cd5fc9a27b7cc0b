"""Parse a RayService's Serve config and status; pure.

KubeRay's `rayservice_controller.go` determines what is written into the status and when. Each property
explains what must not be concluded from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

# Fields of a RayCluster's status that are there as soon as KubeRay has looked at it once.
_SIGNS_OF_LIFE: Final = frozenset(
    {"state", "lastUpdateTime", "observedGeneration", "conditions", "endpoints"}
)


@dataclass(frozen=True)
class Replicas:
    """How many replicas an application has, and how many of them are ready."""

    total: int
    ready: int


@dataclass(frozen=True)
class ApplicationReport:
    """What is reported of one Serve application; KubeRay's copy has neither replicas nor a configuration."""

    status: str
    message: str = ""
    deployment_messages: tuple[str, ...] = ()
    # None if they are not known.
    replicas: Replicas | None = None
    # The application's part of the Serve config that Ray has accepted, decoded; None if it is not known.
    deployed: Mapping[str, Any] | None = None


class Role(StrEnum):
    """What a Ray cluster is to its RayService."""

    ACTIVE = "active"
    """It gets the requests. KubeRay makes a cluster the active one only once all of its applications run."""
    PENDING = "pending"
    """KubeRay prepares it, for a first start or to replace the active one."""


@dataclass(frozen=True)
class ClusterReport:
    """What KubeRay reports of one Ray cluster."""

    cluster: str
    role: Role
    applications: Mapping[str, ApplicationReport] = field(default_factory=dict)


@dataclass(frozen=True)
class RayService:
    """One RayService as it was read."""

    uid: str
    resource_version: str
    generation: int
    observed_generation: int
    document: str
    suspended: bool
    # None until KubeRay has set the condition; True means only that the Service has endpoints.
    ready: bool | None
    active: ClusterReport | None = None
    pending: ClusterReport | None = None

    @property
    def has_run(self) -> bool:
        """Whether the service has ever been ready."""
        return self.active is not None or self.ready is True

    @property
    def generation_lag(self) -> int:
        """Generations of the spec that KubeRay has not observed yet.

        0 before there is an active cluster: until then, KubeRay does not always update observedGeneration.
        """
        return self.generation - self.observed_generation if self.active is not None else 0

    @property
    def is_behind(self) -> bool:
        """Whether KubeRay has not observed the last change of the spec."""
        return self.generation_lag > 0

    @property
    def is_upgrading(self) -> bool:
        """Whether KubeRay prepares a second cluster, to replace the active one."""
        return self.active is not None and self.pending is not None

    @property
    def reporting(self) -> ClusterReport | None:
        """The cluster that gets Serve configs and whose applications are reported; None before the first one.

        During an upgrade that is the pending cluster. KubeRay then reports nothing of the active one, which
        goes on as it is.
        """
        return self.pending or self.active

    @property
    def applications(self) -> Mapping[str, ApplicationReport]:
        """The applications of `reporting`."""
        return self.reporting.applications if self.reporting else {}


def parse_ray_service(manifest: Mapping[str, Any]) -> RayService:
    """Parse an object that the API server returned."""
    metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status", {})
    active, pending = status.get("activeServiceStatus", {}), status.get("pendingServiceStatus", {})
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    suspended = "True" in (conditions.get("Suspended"), conditions.get("Suspending"))
    return RayService(
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration", 0),
        document=spec.get("serveConfigV2", ""),
        suspended=spec.get("suspend", False) or suspended,
        ready=conditions["Ready"] == "True" if "Ready" in conditions else None,
        active=_cluster_report(active, Role.ACTIVE),
        pending=_cluster_report(pending, Role.PENDING),
    )


def _cluster_report(status: Mapping[str, Any], role: Role) -> ClusterReport | None:
    name = status.get("rayClusterName")
    # A pending cluster that does not exist is to be made.
    if not name or (role is Role.ACTIVE and _is_lost(status)):
        return None
    applications = status.get("applicationStatuses") or {}
    return ClusterReport(name, role, {key: _application_report(each) for key, each in applications.items()})


def _application_report(application: Mapping[str, Any]) -> ApplicationReport:
    deployments = application.get("serveDeploymentStatuses", {}).values()
    return ApplicationReport(
        application.get("status", ""),
        application.get("message", ""),
        tuple(deployment.get("message", "") for deployment in deployments),
    )


def _is_lost(status: Mapping[str, Any]) -> bool:
    """Whether the RayCluster does not exist any more.

    KubeRay then leaves its name in the status, and writes the empty status of no RayCluster beside it
    (`calculateStatus`), while it prepares another one.
    """
    cluster = status.get("rayClusterStatus")
    return cluster is not None and not cluster.keys() & _SIGNS_OF_LIFE
