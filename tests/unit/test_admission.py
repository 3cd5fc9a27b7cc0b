"""Which entry an endpoint gets: that of its spec, an older one, or none."""

from tests.unit.small_world import World

NO_SUCH_PROFILE = {"profile": "nowhere"}


def test_before_the_service_has_run_there_is_only_the_gateway():
    world = World("a")
    world.reconcile()
    assert list(world.entries) == ["gateway"]
    assert world.condition("a") == ("False", "WaitingForGateway")
    world.follow()
    world.reconcile()
    assert list(world.entries) == ["a", "gateway"]


def test_a_restarted_operator_does_not_go_back_to_the_gateway_alone(world):
    before = world.document
    world.service["status"] = {}
    world.restart()
    world.reconcile()
    assert world.document == before


def test_a_version_that_fits_nowhere_leaves_the_one_before(world):
    before = world.document
    world.change("a", resources=NO_SUCH_PROFILE)
    world.reconcile()
    assert world.document == before
    assert world.condition("a", "Accepted") == ("False", "ProfileNotFound")
    assert "nowhere" in world.status("a")["lastError"]


def test_an_endpoint_that_never_fitted_is_left_out_and_changes_nothing(world):
    before = world.document
    world.create("c", resources=NO_SUCH_PROFILE)
    world.reconcile()
    assert world.document == before
    assert world.condition("c", "Stalled") == ("True", "ProfileNotFound")


def test_an_endpoint_that_is_larger_than_a_worker_says_so(world):
    world.create("c", resources={"memory": "999Gi"})
    world.reconcile()
    assert world.condition("c", "Accepted") == ("False", "ExceedsProfile")
    assert "a worker of profile 'cpu' has 16Gi" in world.status("c")["lastError"]


def test_an_invalid_spec_that_got_past_the_api_server_is_left_out_with_its_reason(world):
    world.create("c")
    world.endpoints["c"]["spec"]["model"]["uri"] = "ftp://x"
    world.reconcile()
    assert "c" not in world.entries
    assert world.condition("c") == ("False", "InvalidSpec")
    assert "spec.model.uri" in world.status("c")["lastError"]


def test_one_created_again_does_not_inherit_what_is_live(world):
    world.create("a", resources=NO_SUCH_PROFILE)
    world.reconcile()
    assert "a" not in world.entries


def test_the_document_has_room_for_the_oldest_and_for_what_is_served(world):
    world.document_limit = len(world.document) + 100
    world.restart()
    world.create("c")
    world.reconcile()
    assert list(world.entries) == ["a", "b", "gateway"]
    assert world.condition("c") == ("False", "ServeConfigFull")
    del world.endpoints["b"]
    world.reconcile()
    world.reconcile()
    assert list(world.entries) == ["a", "c", "gateway"]


def test_what_is_served_goes_before_what_is_older():
    world = World("a", "b", "c")
    world.change("a", suspend=True)
    world.serve()
    world.document_limit = len(world.document) + 100
    world.restart()
    world.change("a", suspend=False)
    world.reconcile()
    assert list(world.entries) == ["b", "c", "gateway"]
    assert world.condition("a") == ("False", "ServeConfigFull")
