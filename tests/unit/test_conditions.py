"""What the conditions say of an endpoint, in a small world."""

from tests.unit.small_world import BROKEN, DEADLINES, application


def test_all_that_runs_is_ready(world):
    assert world.condition("a") == ("True", "Serving")
    assert world.condition("a", "Accepted") == ("True", "Accepted")
    assert world.status("a")["url"] == "http://ray/v2/models/a"


def test_a_suspended_ray_service_keeps_its_document(world):
    before = world.document
    world.service["status"] = {"conditions": [{"type": "Suspended", "status": "True"}]}
    world.reconcile()
    assert world.document == before
    assert world.condition("a") == ("False", "RayServiceSuspended")


def test_when_kuberay_stops_to_follow_nothing_is_left_ready(world):
    world.service["metadata"]["generation"] += 1
    world.reconcile()
    assert world.condition("a") == ("True", "Serving")
    world.reconcile(after=DEADLINES.behind_seconds)
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")


def test_when_the_dashboard_is_unreachable_nothing_is_left_ready(world):
    world.dashboard_unreachable = True
    world.reconcile()
    assert world.condition("a") == ("Unknown", "RayServiceStatusStale")


def test_a_model_that_runs_behind_a_service_without_endpoints_is_not_ready(world):
    world.service["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    world.reconcile()
    assert world.condition("a") == ("False", "RayServiceNotReady")


def test_an_unschedulable_replica_says_what_it_asks_for_and_is_stalled_after_a_while(world):
    waits = (
        "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to be scheduled. "
        "This may be due to waiting for the cluster to auto-scale. "
        'Resources required for each replica: {"CPU": 2, "GPU": 1}, total resources available: {"CPU": 4}. '
        "Use `ray status` for more details."
    )
    world.change("a", model=BROKEN)
    world.settle(a=application("DEPLOYING", waits))
    assert world.condition("a") == ("False", "Deploying")
    assert '{"CPU": 2, "GPU": 1}, and the cluster has {"CPU": 4}' in world.status("a")["lastError"]
    world.reconcile(after=DEADLINES.unschedulable_seconds)
    assert world.condition("a", "Stalled") == ("True", "Unschedulable")
    assert "broken" in world.entries["a"]
    world.restart()
    world.settle(a=application("DEPLOYING", waits))
    assert world.condition("a", "Stalled") == ("True", "Unschedulable")
