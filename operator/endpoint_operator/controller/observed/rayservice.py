"""Read a RayService's document and status; pure.

What KubeRay writes and when is told in its `rayservice_controller.go`; each property names the trap
that it avoids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

GROUP: Final = "ray.io"
VERSION: Final = "v1"
KIND: Final = "RayService"
PLURAL: Final = "rayservices"


@dataclass(frozen=True)
class ApplicationReport:
    """What KubeRay says of one Serve application."""

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
    # Only once all applications of a cluster were running does KubeRay call it the active one.
    has_active_cluster: bool
    has_pending_cluster: bool
    # None until KubeRay has said anything; True says no more than that the Service has endpoints.
    ready: bool | None
    applications: Mapping[str, ApplicationReport] = field(default_factory=dict)

    @property
    def has_run(self) -> bool:
        """Whether the service has once come up."""
        return self.has_active_cluster or self.ready is True

    @property
    def generation_lag(self) -> int:
        """Changes of the spec since the one that KubeRay's last finished pass has seen.

        0 before there is an active cluster: until then KubeRay does not always record what it has seen.
        """
        return self.generation - self.observed_generation if self.has_active_cluster else 0

    @property
    def is_behind(self) -> bool:
        """Whether KubeRay has not finished a pass since the last change of the spec."""
        return self.generation_lag > 0

    @property
    def is_upgrading(self) -> bool:
        """Whether a second cluster is prepared; meanwhile the active one's applications are not reported."""
        return self.has_active_cluster and self.has_pending_cluster


def parse_ray_service(manifest: Mapping[str, Any]) -> RayService:
    """Return the RayService of a decoded object."""
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
