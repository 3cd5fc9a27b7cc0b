"""Parts are killed while a model is asked: all comes back by itself, and statuses do not lie meanwhile.

All of Ray is killed in test_hub.py.
"""

import time

import pytest

from tests.e2e.watching import truthful

KILL_CONTROLLER = """
import ray
ray.init(address="auto", logging_level="error")
ray.kill(ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve"), no_restart=False)
"""


def kill_controller(release):
    [head] = release.pods(node_type="head", cluster=release.cluster())
    release.kubectl(
        *("exec", head["metadata"]["name"], "--container=ray-head", "--"), "python3", "-c", KILL_CONTROLLER
    )


def kill_leader(release):
    """Kill the operator that leads; the other one has to notice."""
    holder = release.get("lease", f"{release.name}-operator")["spec"]["holderIdentity"]
    release.kubectl("delete", "pod", holder.rpartition("_")[0], "--grace-period=0", "--force", "--wait=false")


FAULTS = {
    "operator": kill_leader,
    "kuberay": lambda release: release.kill("app.kubernetes.io/name=kuberay", namespace="kuberay-system"),
    "serve controller": kill_controller,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_everything_comes_back_by_itself(release, steady, fault, note):
    with truthful(release, steady, note) as load:
        time.sleep(3)
        FAULTS[fault](release)
        time.sleep(15)
    if fault in ("operator", "kuberay"):
        assert load.failures == []
