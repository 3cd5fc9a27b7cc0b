"""Parts are killed while a model is asked: all comes back by itself, and statuses do not lie meanwhile."""

import threading
import time

import pytest

# What the operator may take to see that Ray's head is gone: its look at the dashboard, and its patience.
LONGEST_LIE_SECONDS = 60

KILL_CONTROLLER = """
import ray
ray.init(address="auto", logging_level="error")
ray.kill(ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve"), no_restart=False)
"""


def kill(release, selector, namespace=None):
    arguments = ("delete", "pod", f"--selector={selector}", "--grace-period=0", "--force", "--wait=false")
    if namespace:
        release._kubectl(*arguments, f"--namespace={namespace}")
    else:
        release.kubectl(*arguments)


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
    "kuberay": lambda release: kill(release, "app.kubernetes.io/name=kuberay", "kuberay-system"),
    "serve controller": kill_controller,
    "all of Ray": lambda release: kill(release, "ray.io/cluster"),
}


class Watch(threading.Thread):
    """Looks each second whether the model answers and what its status says."""

    def __init__(self, release, name):
        super().__init__(daemon=True)
        self.release, self.name = release, name
        self.longest_lie = 0.0
        self.silent = 0.0
        self.done = threading.Event()

    def run(self):
        lie_since = None
        while not self.done.wait(1):
            answers = self.release.answers(self.name) is not None
            self.silent += not answers
            lies = not answers and self.release.ready(self.name)[0] == "True"
            lie_since = (lie_since or time.monotonic()) if lies else None
            if lie_since:
                self.longest_lie = max(self.longest_lie, time.monotonic() - lie_since)


@pytest.mark.parametrize("fault", FAULTS)
def test_everything_comes_back_by_itself(release, steady, fault, record_property):
    watch = Watch(release, steady)
    watch.start()
    with release.load(steady, clients=2) as load:
        time.sleep(3)
        FAULTS[fault](release)
        time.sleep(15)
        release.wait_for("it answers", lambda: release.answers(steady), seconds=400)
        release.wait_for("it is Ready", lambda: release.ready(steady)[0] == "True", seconds=120)
        time.sleep(3)
    watch.done.set()
    watch.join()
    seen = (
        f"{load.statuses[200]} answers, {len(load.failures)} failed, {watch.longest_lie:.0f} s Ready in error"
    )
    record_property(f"{fault} killed", seen)
    assert release.answers(steady)["label"] == "POSITIVE"
    assert watch.longest_lie < LONGEST_LIE_SECONDS
    if fault in ("operator", "kuberay"):
        assert load.failures == []
