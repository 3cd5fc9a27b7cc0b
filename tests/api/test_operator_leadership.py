"""Two operators and one Lease: one of them writes, and the other one takes over, whatever happens."""

import contextlib
import re
import time

import httpx
import pytest

from endpoint_operator.controller.leadership.standing import END_WRITES_WITHIN
from tests.harness.api_server.faults import Hang, Late
from tests.harness.operator_process import SHORT
from tests.harness.scene import Peer

# Before it is killed, a pod has 30 s.
GRACE_SECONDS = 10
DOCUMENT_WRITE = {"methods": ("PATCH",), "path": "/rayservices/"}


@pytest.fixture
def lease_seconds():
    # On a busy machine an answer may take two seconds.
    return 6


@pytest.fixture
def settings(lease_seconds):
    # Longer than the Lease lasts, so that nothing else ends a write in time.
    own = {"LEASE": "ray-operator", "LEASE_SECONDS": str(lease_seconds), "REQUEST_TIMEOUT_SECONDS": "30"}
    return {**SHORT, **own}


@pytest.fixture
def first(scene):
    return Peer(scene.operator, scene.proxy)


@pytest.fixture
def pair(scene, first, second):
    """Two operators: the first one leads and serves `a`, the second one waits."""
    scene.begin("a")
    second.operator.start()
    scene.until(lambda: reads_of_the_lease(second))
    return first, second


def reads_of_the_lease(peer):
    return [each for each in list(peer.proxy.requests) if each.method == "GET" and "/leases/" in each.path]


def work(peer):
    """Return the requests that changed anything but the Lease."""
    writes = [each for each in peer.proxy.writes() if "/leases" not in each.path]
    return [each for each in writes if each.status in (200, 201)]


def renewals(peer):
    return [each for each in peer.proxy.writes("/leases") if each.status in (200, 201)]


def leads(peer):
    """Return what an operator's metrics say; False if it does not answer."""
    try:
        metrics = peer.operator.metrics()
    except httpx.TransportError:
        return False
    [value] = re.findall(r"^model_endpoints_operator_leader (\S+)$", metrics, re.MULTILINE)
    return value == "1.0"


def led_by_one_of(peers, scene, *names):
    """Wait until one of `peers` leads and these are served; who ends is started again, as in a pod."""

    def holds():
        for peer in peers:
            if not peer.operator.running:
                peer.operator.start()
        return sum(map(leads, peers)) == 1 and scene.is_ready(*names) and scene.converged()

    scene.until(holds)


def lease_path(scene):
    return f"/apis/coordination.k8s.io/v1/namespaces/{scene.namespace}/leases/ray-operator"


def stored_lease(scene):
    return scene.http.get(lease_path(scene)).raise_for_status().json()


def lease(scene):
    return stored_lease(scene)["spec"]


def edit_lease(scene, **spec):
    """Change fields of the Lease by hand; None takes one out."""
    header = {"Content-Type": "application/merge-patch+json"}
    scene.http.patch(lease_path(scene), json={"spec": spec}, headers=header).raise_for_status()


def assert_took_turns(earlier, later):
    """Check that one began to write only after the other one had stopped."""
    assert work(earlier)[-1].at < work(later)[0].at


# Nobody is followed here, so that a pause of the machine may be longer.
@pytest.mark.parametrize("lease_seconds", [30])
def test_one_of_two_writes_and_the_other_one_waits_until_it_is_asked_to_end(scene, pair):
    first, second = pair
    waiting = time.monotonic()
    for number in range(3):
        scene.create(f"b-{number}")
        scene.serving("a", *(f"b-{each}" for each in range(number + 1)))
    assert leads(first)
    assert not leads(second)
    # Longer than the probe allows without a sign of life.
    scene.until(lambda: time.monotonic() > waiting + float(SHORT["LIVENESS_SECONDS"]) + 1)
    assert second.operator.is_alive()
    # It knows nothing of the endpoints, and would contradict the one that does.
    assert set(re.findall(r"^(model_endpoints\w+)", second.operator.metrics(), re.MULTILINE)) == {
        "model_endpoints_operator_leader"
    }
    assert lease(scene)["leaseTransitions"] == 0
    # The garbage collector takes it with the RayService.
    [owner] = stored_lease(scene)["metadata"]["ownerReferences"]
    assert owner["uid"] == scene.service.stored["metadata"]["uid"]
    assert second.operator.terminate(GRACE_SECONDS) == 0
    assert renewals(second) == work(second) == []


def test_killed_the_leader_is_followed_once_its_lease_has_run_out(scene, pair, lease_seconds):
    first, second = pair
    first.operator.kill()
    scene.create("b")
    led_by_one_of([second], scene, "a", "b")
    assert lease(scene)["leaseTransitions"] == 1
    assert renewals(second)[0].at - renewals(first)[-1].at >= END_WRITES_WITHIN * lease_seconds
    first.operator.start()
    scene.until(first.operator.is_alive)
    scene.create("c")
    led_by_one_of(pair, scene, "a", "b", "c")


@pytest.mark.parametrize("lease_seconds", [60])
def test_asked_to_end_the_leader_is_followed_at_once(scene, pair):
    first, second = pair
    assert first.operator.terminate(GRACE_SECONDS) == 0
    scene.create("b")
    # Before the Lease can have run out.
    scene.serving("a", "b", seconds=40)
    assert leads(second)
    assert_took_turns(first, second)


@pytest.mark.parametrize("lost", ["cut", "silent"])
def test_a_leader_without_a_network_ends_before_it_is_followed_and_its_late_write_is_refused(
    scene, pair, lost
):
    first, second = pair
    with contextlib.ExitStack() as network, scene.proxy.suffering(Late(**DOCUMENT_WRITE)):
        scene.create("b")
        late = scene.until(lambda: held_write(first))
        network.enter_context(scene.proxy.cut() if lost == "cut" else scene.proxy.suffering(Hang()))
        scene.until(lambda: not first.operator.running)
        assert first.operator.exit_status == 1
        assert "could not be renewed in time" in first.operator.output()
        led_by_one_of([second], scene, "a", "b")
        assert max(given_up(first)) < renewals(second)[0].at
    scene.until(lambda: late.status)
    assert late.status == 409
    assert scene.converged()
    assert_took_turns(first, second)


def given_up(peer):
    """Return when each write was given up that had no answer."""
    return [each.given_up_at for each in list(peer.proxy.requests) if each.given_up_at]


def held_write(peer):
    """Return the write of the document that is on its way."""
    requests = list(peer.proxy.requests)
    held = [r for r in requests if r.method == "PATCH" and "/rayservices/" in r.path and not r.passed]
    return held[-1] if held else None


def test_a_late_write_that_meets_the_object_from_which_it_follows_is_undone(scene, pair):
    first, second = pair
    with scene.proxy.suffering(Late(**DOCUMENT_WRITE)):
        scene.create("b")
        late = scene.until(lambda: held_write(first))
        first.operator.kill()
        scene.delete("b")
        led_by_one_of([second], scene, "a")
    scene.until(lambda: late.status)
    led_by_one_of([second], scene, "a")


def test_a_leader_that_stood_still_writes_nothing_when_it_goes_on(scene, pair):
    first, second = pair
    first.operator.freeze()
    scene.create("b")
    led_by_one_of([second], scene, "a", "b")
    first.operator.thaw()
    scene.until(lambda: not first.operator.running)
    assert first.operator.exit_status == 1
    assert_took_turns(first, second)


def test_after_an_outage_of_the_api_server_one_of_them_leads(scene, pair, lease_seconds):
    first, second = pair
    with first.proxy.cut(), second.proxy.cut():
        scene.create("b")
        scene.until(lambda: not first.operator.running)
        assert first.operator.exit_status == 1
        first.operator.start()
        scene.stays(lambda: first.operator.running and second.operator.running, lease_seconds)
    led_by_one_of(pair, scene, "a", "b")
    scene.create("c")
    led_by_one_of(pair, scene, "a", "b", "c")


@pytest.mark.parametrize("lease_seconds", [10])
def test_a_lease_that_is_edited_or_deleted_by_hand_never_makes_two_leaders(scene, pair):
    first, second = pair
    edits = (
        {"holderIdentity": ""},
        {"holderIdentity": None, "renewTime": None, "acquireTime": None, "leaseTransitions": None},
        {"leaseDurationSeconds": None, "renewTime": "1999-01-01T00:00:00.000000Z"},
        # So long nobody else takes the Lease, because this might be the truth.
        {"leaseDurationSeconds": 25, "renewTime": "2999-01-01T00:00:00.000000Z"},
        {"leaseDurationSeconds": 1},
    )
    for edit in edits:
        edit_lease(scene, **edit)
        looked = len(reads_of_the_lease(second))
        scene.until(lambda looked=looked: len(reads_of_the_lease(second)) > looked + 1)
    scene.http.delete(lease_path(scene)).raise_for_status()
    scene.until(lambda: scene.http.get(lease_path(scene)).is_success)
    scene.create("b")
    scene.serving("a", "b")
    assert leads(first)
    assert renewals(second) == work(second) == []
    edit_lease(scene, holderIdentity="somebody")
    scene.until(lambda: not first.operator.running)
    assert first.operator.exit_status == 1
    assert "is held by somebody now" in first.operator.output()
    scene.create("c")
    led_by_one_of([second], scene, "a", "b", "c")
    assert_took_turns(first, second)
