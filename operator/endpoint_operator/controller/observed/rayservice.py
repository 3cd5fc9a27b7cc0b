"""Parse a RayService's Serve config and status; pure.

KubeRay's `rayservice_controller.go` determines what is written into the status and when. Each property
explains what must not be concluded from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ApplicationReport:
    """What KubeRay reports of one Serve application."""

    status: str
    message: str = ""
    deployment_messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class RayService:
    """One RayService as it was read."""

    uid: str
    resource_version: str
    generation: int
    observed_generation: int
    document: str
    suspended: bool
    # KubeRay makes a cluster the active one only once all of its applications run.
    has_active_cluster: bool
    has_pending_cluster: bool
    # None until KubeRay has set the condition; True means only that the Service has endpoints.
    ready: bool | None
    applications: Mapping[str, ApplicationReport] = field(default_factory=dict)

    @property
    def has_run(self) -> bool:
        """Whether the service has ever been ready."""
        return self.has_active_cluster or self.ready is True

    @property
    def generation_lag(self) -> int:
        """Generations of the spec that KubeRay has not observed yet.

        0 before there is an active cluster: until then, KubeRay does not always update observedGeneration.
        """
        return self.generation - self.observed_generation if self.has_active_cluster else 0

    @property
    def is_behind(self) -> bool:
        """Whether KubeRay has not observed the last change of the spec."""
        return self.generation_lag > 0

    @property
    def is_upgrading(self) -> bool:
        """Whether KubeRay prepares a second cluster, and so does not report on the active one."""
        return self.has_active_cluster and self.has_pending_cluster


def parse_ray_service(manifest: Mapping[str, Any]) -> RayService:
    """Parse an object that the API server returned."""
    metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status", {})
    active, pending = status.get("activeServiceStatus", {}), status.get("pendingServiceStatus", {})
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    reported = active.get("applicationStatuses") or pending.get("applicationStatuses") or {}
    suspended = "True" in (conditions.get("Suspended"), conditions.get("Suspending"))
    return RayService(
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration", 0),
        document=spec.get("serveConfigV2", ""),
        suspended=spec.get("suspend", False) or suspended,
        has_active_cluster=bool(active.get("rayClusterName")),
        has_pending_cluster=bool(pending.get("rayClusterName")),
        ready=conditions["Ready"] == "True" if "Ready" in conditions else None,
        applications={name: _report(application) for name, application in reported.items()},
    )


def _report(application: Mapping[str, Any]) -> ApplicationReport:
    deployments = application.get("serveDeploymentStatuses", {}).values()
    return ApplicationReport(
        application.get("status", ""),
        application.get("message", ""),
        tuple(deployment.get("message", "") for deployment in deployments),
    )
