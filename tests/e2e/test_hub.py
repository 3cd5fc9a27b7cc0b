"""All of Ray is killed while the hub is away: models come back by themselves, its own once it is there."""

import os
import time
from pathlib import Path

import pytest

from hack.images.project_images import serve_image
from tests.e2e.release import endpoint
from tests.e2e.watching import truthful

HUB = Path(__file__).with_name("hub.py")
# At least: it lasts until the operator has tried each model again. The variable is for longer ones by hand.
OUTAGE_SECONDS = int(os.environ.get("OUTAGE_SECONDS", "30"))
LONGEST_RETURN_SECONDS = 180
MODELS = ("from-hub-1", "from-hub-2")


@pytest.fixture
def hub(release):
    """A pod that serves the image's models as a hub does; yields a function that runs a command in it."""
    release.kubectl("create", "configmap", "hub", f"--from-file={HUB}")
    release.apply(*manifests())
    release.kubectl("wait", "pod/hub", "--for=condition=Ready", "--timeout=120s")
    yield lambda *command: release.kubectl("exec", "hub", "--", *command)
    release.kubectl("delete", "pod/hub", "service/hub", "configmap/hub", "--grace-period=0")


def manifests():
    labels = {"app": "hub"}
    port = 8080
    container = {
        "name": "hub",
        "image": serve_image().name,
        "imagePullPolicy": "Never",
        "command": ["python3", "/hub/hub.py"],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "hub", "mountPath": "/hub"}],
    }
    spec = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "hub", "configMap": {"name": "hub"}}],
    }
    service = {"selector": labels, "ports": [{"port": port}]}
    return (
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hub", "labels": labels}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hub"}, "spec": service},
    )


@pytest.fixture
def from_hub(release, hub):
    """Endpoints whose models come from the hub, once they answer."""
    release.apply(
        endpoint(MODELS[0], uri="hf://local/sentiment"),
        endpoint(MODELS[1], uri="hf://local/topic"),
    )
    release.wait_ready(*MODELS)
    yield MODELS
    for name in MODELS:
        release.delete(name)


def attempts(release, name):
    """Return how often the endpoint has failed."""
    return release.get("modelendpoint", name)["status"].get("rollout", {}).get("attempts", 0)


@pytest.mark.timeout(OUTAGE_SECONDS + 900, func_only=True)
def test_models_return_soon_after_the_hub_without_a_hand(release, steady, hub, from_hub, note):
    with truthful(release, steady, note):
        hub("touch", "/tmp/outage")
        # With the pods, the models that they have downloaded go.
        release.kill("ray.io/cluster")
        time.sleep(OUTAGE_SECONDS)
        for name in from_hub:
            is_tried_in_vain(release, name, note)
        hub("rm", "/tmp/outage")
        returned = time.monotonic()
        for name in from_hub:
            release.wait_for(f"{name} answers", lambda name=name: release.answers(name))
            note(f"{name} answers after the hub's return", f"{time.monotonic() - returned:.0f} s")
        assert time.monotonic() - returned < LONGEST_RETURN_SECONDS
    release.wait_ready(*from_hub, seconds=30)


def is_tried_in_vain(release, name, note):
    """Check that the model, which is of the hub, is tried again, and that its status tells the cause."""
    release.wait_for(f"{name} is tried again", lambda: attempts(release, name) > 1)
    assert release.answers(name) is None
    status = release.get("modelendpoint", name)["status"]
    assert release.ready(name)[0] == "False", status
    assert "the hub cannot be reached" in status["rollout"]["message"]
    note(f"attempts during the outage, {name}", status["rollout"]["attempts"])
