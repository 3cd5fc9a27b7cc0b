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
    return {**SHORT, "LEASE": "ray-operator", "LEASE_SECONDS": str(lease_seconds)}


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


def followed(scene, second, *names):
    """Wait until `second` leads and serves; if it ends, it starts again, as in a pod."""

    def holds():
        if not second.operator.running:
            second.operator.start()
        return leads(second) and scene.is_ready(*names) and scene.converged()

    scene.until(holds)


def lease_path(scene):
    return f"/apis/coordination.k8s.io/v1/namespaces/{scene.namespace}/leases/ray-operator"


def lease(scene):
    return scene.http.get(lease_path(scene)).raise_for_status().json()["spec"]


def edit_lease(scene, **spec):
    """Change fields of the Lease by hand; None takes one out."""
    header = {"Content-Type": "application/merge-patch+json"}
    scene.http.patch(lease_path(scene), json={"spec": spec}, headers=header).raise_for_status()


def assert_took_turns(earlier, later):
    """Check that one began to write only after the other one had stopped."""
    assert work(earlier)[-1].at < work(later)[0].at


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
    assert second.operator.terminate(GRACE_SECONDS) == 0
    assert renewals(second) == work(second) == []


def test_killed_the_leader_is_followed_once_its_lease_has_run_out(scene, pair, lease_seconds):
    first, second = pair
    first.operator.kill()
    scene.create("b")
    followed(scene, second, "a", "b")
    assert lease(scene)["leaseTransitions"] == 1
    assert renewals(second)[0].at - renewals(first)[-1].at >= END_WRITES_WITHIN * lease_seconds
    first.operator.start()
    scene.until(first.operator.is_alive)
    scene.create("c")
    scene.serving("a", "b", "c")
    assert leads(second)
    assert not leads(first)


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
        followed(scene, second, "a", "b")
        assert late.given_up_at < renewals(second)[0].at
    scene.until(lambda: late.status)
    assert late.status == 409
    assert scene.converged()
    assert_took_turns(first, second)


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
        followed(scene, second, "a")
    scene.until(lambda: late.status)
    followed(scene, second, "a")


def test_a_leader_that_stood_still_writes_nothing_when_it_goes_on(scene, pair):
    first, second = pair
    first.operator.freeze()
    scene.create("b")
    followed(scene, second, "a", "b")
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
    scene.serving("a", "b")
    assert leads(first) != leads(second)
    before = len(work(first)), len(work(second))
    scene.create("c")
    scene.serving("a", "b", "c")
    assert sum(was != len(work(peer)) for was, peer in zip(before, pair, strict=True)) == 1


def test_a_lease_that_is_edited_or_deleted_by_hand_never_makes_two_leaders(scene, pair, lease_seconds):
    first, second = pair
    edits = (
        {"holderIdentity": ""},
        {"holderIdentity": None, "renewTime": None, "acquireTime": None, "leaseTransitions": None},
        {"leaseDurationSeconds": None, "renewTime": "1999-01-01T00:00:00.000000Z"},
        {"leaseDurationSeconds": 2_000_000_000, "renewTime": "2999-01-01T00:00:00.000000Z"},
        {"leaseDurationSeconds": 1},
    )
    for edit in edits:
        edit_lease(scene, **edit)
        looked = len(reads_of_the_lease(second))
        scene.until(lambda looked=looked: len(reads_of_the_lease(second)) > looked + 2)
    scene.http.delete(lease_path(scene)).raise_for_status()
    scene.until(lambda: scene.http.get(lease_path(scene)).is_success)
    scene.create("b")
    scene.serving("a", "b")
    scene.stays(lambda: leads(first) and not leads(second), lease_seconds)
    assert renewals(second) == work(second) == []
    edit_lease(scene, holderIdentity="somebody")
    scene.until(lambda: not first.operator.running)
    assert first.operator.exit_status == 1
    assert "is held by somebody now" in first.operator.output()
    scene.create("c")
    followed(scene, second, "a", "b", "c")
    assert_took_turns(first, second)
