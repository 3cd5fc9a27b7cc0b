"""What may be concluded from a RayService's status, and what not."""

from endpoint_operator.controller.observed.rayservice import Role, parse_ray_service
from tests.unit.small_world import FAILED


def service(**status):
    metadata = {"uid": "u", "resourceVersion": "1", "generation": 2}
    return parse_ray_service({"metadata": metadata, "spec": {}, "status": status})


def test_a_ray_service_without_a_status_has_not_run():
    assert not service().has_run
    assert service().ready is None


def test_before_there_is_an_active_cluster_kuberay_is_not_called_behind():
    assert not service(observedGeneration=1).is_behind
    assert service(observedGeneration=1).generation_lag == 0
    active = {"rayClusterName": "one"}
    assert service(observedGeneration=1, activeServiceStatus=active).is_behind
    assert service(observedGeneration=0, activeServiceStatus=active).generation_lag == 2


def test_during_an_upgrade_the_pending_cluster_reports():
    upgrading = service(
        activeServiceStatus={"rayClusterName": "one"},
        pendingServiceStatus={"rayClusterName": "two", "applicationStatuses": {"a": FAILED}},
    )
    assert upgrading.is_upgrading
    assert (upgrading.reporting.cluster, upgrading.reporting.role) == ("two", Role.PENDING)
    assert upgrading.applications["a"].status == "DEPLOY_FAILED"
    assert upgrading.active.applications == {}


def test_a_pending_cluster_that_is_not_there_yet_is_an_upgrade():
    """KubeRay writes its status again only once there are applications to report."""
    upgrading = service(
        activeServiceStatus={"rayClusterName": "one", "rayClusterStatus": {"state": "ready", "head": {}}},
        pendingServiceStatus={"rayClusterName": "two", "rayClusterStatus": {"head": {}}},
    )
    assert upgrading.is_upgrading
    assert upgrading.pending.cluster == "two"
    assert upgrading.applications == {}


def test_a_ray_cluster_that_was_deleted_serves_nobody_although_its_name_stays():
    lost = {"rayClusterName": "one", "rayClusterStatus": {"desiredCPU": "0", "head": {}}}
    there = lost | {"rayClusterStatus": {"state": "ready", "head": {}}}
    assert service(activeServiceStatus=lost).active is None
    assert service(activeServiceStatus=there).active.cluster == "one"
    replaced = service(activeServiceStatus=lost, pendingServiceStatus=there)
    assert not replaced.is_upgrading
