"""Upgrades that replace all pods of Ray: KubeRay prepares a second Ray cluster, and nobody may notice."""

import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
import yaml

from hack.cluster import kind
from hack.images.project_images import serve_image
from serve_app.contract import MODELS_VARIABLE
from tests.e2e.release import SAMPLES, VALUES, endpoint

# After so long, a version that fails is given up, unless the active cluster serves it.
FAILED_SECONDS = 10
# From KubeRay's first report of the failure.
LONGEST_TO_BLOCKED = 60
# KubeRay removes a Ray cluster a minute after it has replaced it.
REMOVED_SECONDS = 180


@pytest.fixture(scope="module")
def models(release, steady):
    """Three endpoints that serve; two of them are samples that an earlier test may have left."""
    for name in ("sentiment", "topic"):
        release.apply(yaml.safe_load((SAMPLES / f"{name}.yaml").read_text()))
    release.wait_ready("sentiment", "topic")
    yield (steady, "sentiment", "topic")
    # The operator gets its patience back.
    release.install(f"--set=image.tag={tag(release)}")


@pytest.fixture
def install(release, tmp_path):
    """A function that upgrades the release to values with little patience of the operator."""

    def run(values, **settings):
        file = tmp_path / "values.yaml"
        operator = {"settings": {"failedSeconds": FAILED_SECONDS, **settings}}
        file.write_text(yaml.safe_dump({**values, "operator": operator}))
        release.install(f"--values={file}")

    return run


class Watch(threading.Thread):
    """Looks all the time at the endpoints and the RayService; times are seconds since it began."""

    def __init__(self, release, names):
        super().__init__(daemon=True)
        self.release, self.names = release, names
        self.not_ready = []
        # The active Ray clusters, one after another.
        self.clusters = []
        # When KubeRay first reported that an application fails on the pending cluster, by endpoint.
        self.failed = {}
        # When an endpoint first held the upgrade, by endpoint.
        self.blocked = {}
        self.looks = 0
        self.began = time.monotonic()
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(1):
            self.look()

    def look(self):
        items = self.release.get("modelendpoints,rayservices")["items"]
        now = time.monotonic() - self.began
        for item in items:
            if item["kind"] == "RayService":
                self._note_service(item["status"], now)
            else:
                self._note_endpoint(item["metadata"]["name"], item.get("status", {}), now)
        self.looks += 1

    def _note_service(self, status, now):
        active = status["activeServiceStatus"]["rayClusterName"]
        if self.clusters[-1:] != [active]:
            self.clusters.append(active)
        pending = status.get("pendingServiceStatus", {}).get("applicationStatuses", {})
        for name, application in pending.items():
            if application["status"] == "DEPLOY_FAILED":
                self.failed.setdefault(name, now)

    def _note_endpoint(self, name, status, now):
        conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
        if name in self.names and conditions["Ready"]["status"] != "True":
            self.not_ready.append(f"{name}, {now:.0f} s: {conditions['Ready']}")
        if "UpgradeBlocked" in conditions:
            self.blocked.setdefault(name, now)


@contextmanager
def undisturbed(release, names, note):
    """Send `names` more than 10 requests a second; no request may fail, and all must stay Ready."""
    watch = Watch(release, names)
    with ExitStack() as stack:
        loads = [stack.enter_context(release.load(name, clients=2, pause=0.25)) for name in names]
        watch.start()
        stack.callback(watch.join, 30)
        stack.callback(watch.done.set)
        yield watch
    seconds = time.monotonic() - watch.began
    requests = sum(load.statuses.total() for load in loads)
    failures = [failure for load in loads for failure in load.failures]
    slowest = max(load.slowest for load in loads)
    note("requests", f"{requests}, {requests / seconds:.0f} a second, slowest {slowest:.1f} s")
    note("failed requests", len(failures))
    assert failures == []
    assert watch.not_ready == []
    assert watch.looks > 10


@pytest.fixture
def note(request, record_property):
    return lambda what, value: record_property(f"{request.node.name}: {what}", value)


def upgrading(release):
    conditions = release.get("rayservice", release.name)["status"]["conditions"]
    return next(each["status"] for each in conditions if each["type"] == "UpgradeInProgress") == "True"


def blocked(release, name):
    """Return the message of UpgradeBlocked; empty if the endpoint does not hold an upgrade."""
    return release.conditions(name).get("UpgradeBlocked", {}).get("message", "")


def is_held(release, watch, names, note):
    """Check that `names` hold the upgrade soon, that nobody else does, and that it stays so."""
    for name in names:
        release.wait_for(f"{name} holds the upgrade", lambda name=name: blocked(release, name))
    seconds = 2 * FAILED_SECONDS
    release.stays("the old cluster is the active one", lambda: upgrading(release), seconds)
    assert watch.blocked.keys() == set(names)
    late = {name: watch.blocked[name] - watch.failed[name] for name in names}
    for name in names:
        note(
            f"{name} is blocked",
            f"{watch.blocked[name]:.0f} s after the upgrade began, {late[name]:.0f} s after it failed",
        )
    assert max(late.values()) < LONGEST_TO_BLOCKED


def is_rolled_back(release, watch, names):
    """Check that a rollback ends the upgrade, and that the cluster that held never was the active one."""
    held = release.get("rayservice", release.name)["status"]["pendingServiceStatus"]["rayClusterName"]
    release.roll_back()
    release.wait_for("the upgrade is over", lambda: not upgrading(release))
    release.wait_for("nothing is held", lambda: not any(blocked(release, name) for name in names))
    release.stays("nothing is held", lambda: not any(blocked(release, name) for name in names), 5)
    # KubeRay does not stay with the active cluster, but makes another one like it and moves there.
    assert len(watch.clusters) == 2
    assert held not in watch.clusters


def test_an_upgrade_in_which_no_model_loads_is_held_and_a_rollback_costs_nothing(
    release, models, install, note
):
    nowhere = {"name": MODELS_VARIABLE, "value": "/nowhere"}
    environment = yaml.safe_load(VALUES.read_text())["ray"]["env"]
    with undisturbed(release, models, note) as watch:
        install({"ray": {"env": [*environment, nowhere]}})
        release.wait_for("a second cluster is prepared", lambda: upgrading(release))
        is_held(release, watch, served(release), note)
        assert "there is no folder /nowhere/topic" in blocked(release, "topic")
        is_rolled_back(release, watch, models)


def served(release):
    """Return the endpoints that serve."""
    names = [item["metadata"]["name"] for item in release.get("modelendpoints")["items"]]
    return [name for name in names if release.ready(name)[0] == "True"]


def test_an_upgrade_in_which_one_model_is_missing_is_held_by_that_one_only(release, models, install, note):
    ray = yaml.safe_load(VALUES.read_text())["ray"]
    volume = {"name": "empty", "emptyDir": {}}
    mount = {"name": "empty", "mountPath": "/models/topic"}
    ray |= {"volumes": [*ray["volumes"], volume], "volumeMounts": [*ray["volumeMounts"], mount]}
    with undisturbed(release, models, note) as watch:
        install({"ray": ray})
        release.wait_for("a second cluster is prepared", lambda: upgrading(release))
        is_held(release, watch, ["topic"], note)
        assert "/models/topic" in blocked(release, "topic")
        is_rolled_back(release, watch, ["topic"])


def tag(release):
    """Return the tag of the image that Ray runs."""
    head = release.get("rayservice", release.name)["spec"]["rayClusterConfig"]["headGroupSpec"]
    return head["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]


@pytest.fixture
def other_tag(release):
    """Another tag of the same image, so that all pods are new."""
    kind.add_tag(serve_image().name, "next")
    return "dev" if tag(release) == "next" else "next"


def test_an_upgrade_to_another_image_fails_no_request(release, models, install, other_tag, note):
    with undisturbed(release, models, note) as watch:
        install({"image": {"tag": other_tag}})
        is_promoted_once(release, watch, note)
    images = {pod["spec"]["containers"][0]["image"] for pod in release.pods()}
    assert {image.rpartition(":")[2] for image in images} == {other_tag}


def is_promoted_once(release, watch, note):
    """Check that one new Ray cluster becomes the active one and that the old one goes."""
    release.wait_for("a second cluster is prepared", lambda: upgrading(release))
    release.wait_for("it is the active one", lambda: len(watch.clusters) > 1)
    note("promoted", f"after {time.monotonic() - watch.began:.0f} s")
    release.wait_for(
        "the old cluster is gone",
        lambda: len(release.get("rayclusters")["items"]) == 1,
        seconds=REMOVED_SECONDS,
    )
    assert not upgrading(release)
    assert len(watch.clusters) == 2
    assert watch.blocked == {}


def test_an_endpoint_that_failed_before_an_upgrade_does_not_hold_it_and_is_tried_again(
    release, models, install, other_tag, note
):
    def failing():
        return release.get("modelendpoint", "failing").get("status", {})

    release.apply(endpoint("failing", uri="file:///models/nowhere"))
    release.wait_for("it fails", lambda: failing().get("lastError"))
    with undisturbed(release, models, note) as watch:
        install({"image": {"tag": other_tag}}, retrySeconds=30)
        is_promoted_once(release, watch, note)
        attempts = failing()["rollout"]["attempts"]
        note("attempts before it was tried again", attempts)
        release.wait_for("it is tried again", lambda: failing()["rollout"]["attempts"] > attempts)
    release.delete("failing")
