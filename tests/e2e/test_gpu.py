"""An endpoint that needs an accelerator: it waits visibly, gets its node, and gives it back.

The last of these is looked at by test_scale_down.py, after other tests: it takes the autoscaler a while.
"""

import pytest

from hack.cluster.simulated_gpu import GPU_LABEL, set_accelerators
from tests.e2e.release import endpoint


@pytest.fixture
def no_accelerators(kubectl):
    """Take the simulated accelerators away for one test; yields how to give them back."""
    [node] = kubectl.get("nodes", f"--selector={GPU_LABEL}=true")["items"]
    name = node["metadata"]["name"]
    set_accelerators(kubectl, [name], 0)
    yield name, lambda: set_accelerators(kubectl, [name], 2)
    set_accelerators(kubectl, [name], 2)


def test_a_gpu_endpoint_waits_for_its_node_and_runs_there(release, no_accelerators, accelerator_workers):
    node, give_back = no_accelerators
    assert release.pods(group="gpu") == []
    release.apply(endpoint("on-gpu", resources={"profile": "gpu", "count": 1}))

    def waits():
        status, reason = release.ready("on-gpu")
        return status == "False" and reason

    release.wait_for("a reason to wait", waits)
    release.wait_for(
        "the message names what is missing",
        lambda: "GPU" in str(release.get("modelendpoint", "on-gpu")["status"]),
    )
    assert release.http.get("/health").status_code == 200

    give_back()
    release.wait_ready("on-gpu", seconds=300)
    assert release.answers("on-gpu")["label"] == "POSITIVE"
    [worker] = release.pods(group="gpu")
    accelerator_workers.append(worker["metadata"]["name"])
    assert worker["spec"]["nodeName"] == node
    [replica] = replicas_of(release, "on-gpu")
    assert replica["node_ip"] == worker["status"]["podIP"]
    release.delete("on-gpu")


def replicas_of(release, name):
    deployments = release.applications()[name]["deployments"].values()
    return [replica for deployment in deployments for replica in deployment["replicas"]]
