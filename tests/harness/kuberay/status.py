"""What KubeRay 1.6.2 writes into a RayService's status: parts of `calculateStatus`, as pure functions."""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

# KubeRay compares statuses without these, so a change of them alone is not written.
_NOT_COMPARED: Final = ("observedGeneration", "lastUpdateTime")


def calculate_conditions(status: dict[str, Any]) -> None:
    """Set the conditions from the rest of the status, as `calculateConditions` does."""
    status.setdefault("conditions", [])
    if not status["conditions"]:
        _set(status, "Ready", "False", "Initializing", "RayService is initializing")
        _set(status, "UpgradeInProgress", "False", "Initializing", "RayService is initializing")
    if status.get("numServeEndpoints", 0) > 0:
        _set(status, "Ready", "True", "NonZeroServeEndpoints", "Number of serve endpoints is greater than 0")
    elif is_true(status, "Ready"):
        _set(status, "Ready", "False", "ZeroServeEndpoints", "Number of serve endpoints dropped to 0")
    active, pending = cluster_name(status, "active"), cluster_name(status, "pending")
    if active and pending:
        message = "Both active and pending Ray clusters exist"
        _set(status, "UpgradeInProgress", "True", "BothActivePendingClustersExist", message)
    elif active:
        message = "Active Ray cluster exists and no pending Ray cluster"
        _set(status, "UpgradeInProgress", "False", "NoPendingCluster", message)


def suspended(status: dict[str, Any]) -> None:
    """Make `status` that of a suspended RayService, of which nothing is left."""
    for kind in ("active", "pending"):
        status[f"{kind}ServiceStatus"] = {}
    status["numServeEndpoints"] = 0
    calculate_conditions(status)
    _set(status, "Suspended", "True", "SuspendComplete", "RayService is suspended")


def resumed(status: dict[str, Any]) -> None:
    """Take back what `suspended` says."""
    if is_true(status, "Suspended"):
        _set(status, "Suspended", "False", "RayServiceResumed", "RayService is resumed")


def cluster_name(status: Mapping[str, Any], kind: str) -> str:
    """Return the name of the active or the pending RayCluster; empty if there is none."""
    return str(status.get(f"{kind}ServiceStatus", {}).get("rayClusterName", ""))


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Return whether the condition of that type is True."""
    return any(
        condition["type"] == kind and condition["status"] == "True"
        for condition in status.get("conditions", [])
    )


def is_worth_writing(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether KubeRay would write `new` over `old`, as `InconsistentRayServiceStatuses` decides."""
    return _compared(old) != _compared(new)


def now(seconds: int = 0) -> str:
    """Return the moment in so many seconds as Kubernetes writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compared(status: Mapping[str, Any]) -> dict[str, Any]:
    compared = {key: copy.deepcopy(value) for key, value in status.items() if key not in _NOT_COMPARED}
    for kind in ("active", "pending"):
        part = compared.pop(f"{kind}ServiceStatus", {})
        part.pop("rayClusterStatus", None)
        # Go leaves out what is empty.
        compared[kind] = {key: value for key, value in part.items() if value}
    return {key: value for key, value in compared.items() if value}


def _set(status: dict[str, Any], kind: str, value: str, reason: str, message: str) -> None:
    """Do what `meta.SetStatusCondition` does: the time moves only when the status of the condition does."""
    new = {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "observedGeneration": status["observedGeneration"],
        "lastTransitionTime": now(),
    }
    for index, old in enumerate(status["conditions"]):
        if old["type"] == kind:
            if old["status"] == value:
                new["lastTransitionTime"] = old["lastTransitionTime"]
            status["conditions"][index] = new
            return
    status["conditions"].append(new)
