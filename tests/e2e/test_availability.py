"""Ray's head, its store, nodes and workers go while three models are asked, each with two replicas apart."""

import time

import pytest

from tests.e2e.release import endpoint
from tests.e2e.watching import undisturbed

LONGEST_TO_READY = 90
HEAD = "ray.io/node-type=head"
STORE = "app.kubernetes.io/component=head-store"
APART = {"minReplicas": 2, "maxReplicas": 2, "maxReplicasPerNode": 1}


@pytest.fixture(scope="module")
def apart(release):
    """Three endpoints with replicas on two workers, which an upgrade has made; see test_upgrade.py."""
    if len(workers(release)) < 2:
        options = "profiles[0].minWorkers=2,profiles[0].maxWorkers=4,head.terminationGracePeriodSeconds=6"
        release.install(f"--set={options}")
        release.wait_for("two workers", lambda: len(workers(release)) > 1)
        release.wait_for("one Ray cluster", lambda: len(release.get("rayclusters")["items"]) == 1)
    release.delete_samples()
    names = ("apart-1", "apart-2", "apart-3")
    release.apply(*(endpoint(name, scaling=APART) for name in names))
    release.wait_ready(*names)
    yield names
    for name in names:
        release.delete(name)


def is_ready(pod):
    """Whether all containers of the pod are; one that was just made has none."""
    containers = pod["status"].get("containerStatuses", [])
    return bool(containers) and all(container["ready"] for container in containers)


def workers(release):
    """Return the workers that are ready, a pod each."""
    return list(filter(is_ready, release.pods(node_type="worker", cluster=release.cluster())))


def settled(release, names):
    """Whether Ray's head answers, and each model has the two replicas that it should."""
    heads = release.pods(node_type="head", cluster=release.cluster())
    if len(heads) != 1 or not is_ready(heads[0]):
        return False
    return all(len(release.replicas(name)) == APART["minReplicas"] for name in names)


def test_requests_go_on_without_ray_s_head_and_without_its_store(release, apart, note):
    with undisturbed(release, apart, note, may_be=("True", "Unknown")):
        for selector in (HEAD, HEAD, STORE):
            began = time.monotonic()
            release.kubectl("delete", "pod", f"--selector={selector}", "--wait=false")
            # The store takes the head with it, a moment later.
            time.sleep(10)
            release.wait_for("the head is back", lambda: settled(release, apart))
            note(f"{selector} deleted", f"Ray knows all replicas after {time.monotonic() - began:.0f} s")
        release.apply(endpoint("afterwards"))
        release.wait_ready("afterwards", seconds=LONGEST_TO_READY)
    release.delete("afterwards")


@pytest.fixture
def drain(kubectl):
    """A function that drains a node; it takes pods again at its next call and afterwards."""
    cordoned = []

    def run(node):
        while cordoned:
            kubectl("uncordon", cordoned.pop())
        cordoned.append(node)
        kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=600s")

    yield run
    while cordoned:
        kubectl("uncordon", cordoned.pop())


def test_nodes_that_are_drained_fail_no_request(release, apart, drain, note):
    drained = []
    with undisturbed(release, apart, note, may_be=("True", "Unknown")):
        while len(drained) < 2:
            # After the first one, no worker is left on it.
            [node, *_] = (worker["spec"]["nodeName"] for worker in workers(release))
            began = time.monotonic()
            drain(node)
            note(f"{node} drained", f"after {time.monotonic() - began:.0f} s")
            drained.append(node)
            release.wait_for("all is in place", lambda: settled(release, apart))
    assert len(set(drained)) == 2


def test_a_worker_that_is_killed_takes_only_the_requests_inside_it(release, apart, note):
    killed = workers(release)[0]["metadata"]["name"]
    clients = 4
    with release.load(apart[0], clients=clients) as load:
        time.sleep(3)
        release.kubectl("delete", "pod", killed, "--grace-period=0", "--force")
        time.sleep(10)
        release.wait_for("all is in place", lambda: settled(release, apart))
    note("a worker killed", f"{len(load.failures)} of {load.statuses.total()} requests failed")
    # Each client has one request under way in the worker's proxy or in its replica. If the proxy dies first,
    # the client asks another one at once, and may reach the replica in the moment in which that still dies.
    answered = [failure for failure in load.failures if " 503 " in failure]
    assert len(load.failures) - len(answered) <= clients
    assert len(answered) <= clients
