"""Upgrades that replace all pods of Ray: KubeRay prepares a second Ray cluster, and nobody may notice."""

import time

import pytest
import yaml

from hack.cluster import kind
from hack.images.project_images import serve_image
from serve_app.parameters import MAX_NEW_TOKENS
from tests.e2e.release import IMPATIENT, SAMPLES, VALUES, endpoint
from tests.e2e.watching import undisturbed
from tests.load import load_on

# After so long, a version that fails is given up, unless the active cluster serves it.
FAILED_SECONDS = yaml.safe_load(IMPATIENT.read_text())["operator"]["settings"]["failedSeconds"]
# From KubeRay's first report of the failure.
LONGEST_TO_BLOCKED = 60
# KubeRay removes a Ray cluster some time after it has replaced it, and its state first.
REMOVED_SECONDS = 180
# A Ray cluster and all models start beside another one that serves, on two processors.
PROMOTED_SECONDS = 480
# Of a request that is under way while one cluster takes over from another.
LONG_SECONDS = 20


@pytest.fixture(scope="module")
def models(release, steady):
    """Three endpoints that serve; two of them are samples that an earlier test may have left."""
    names = ("sentiment", "topic")
    release.delete_samples(*names)
    release.apply(*(yaml.safe_load((SAMPLES / f"{name}.yaml").read_text()) for name in names))
    release.wait_ready(*names)
    return (steady, *names)


@pytest.fixture
def install(release, tmp_path):
    """A function that upgrades the release to other values."""

    def run(values):
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        release.install(f"--values={file}")

    return run


def upgrading(release):
    conditions = release.get("rayservice", release.name)["status"]["conditions"]
    return next(each["status"] for each in conditions if each["type"] == "UpgradeInProgress") == "True"


def pending(release):
    """Return the name of the Ray cluster that is prepared."""
    return release.get("rayservice", release.name)["status"]["pendingServiceStatus"]["rayClusterName"]


def blocked(release, name):
    """Return the message of UpgradeBlocked; empty if the endpoint does not hold an upgrade."""
    return release.conditions(name).get("UpgradeBlocked", {}).get("message", "")


def is_held(release, watch, name, note):
    """Check that `name` holds the upgrade soon, that nobody else does, and that it stays so."""
    release.wait_for(f"{name} holds the upgrade", lambda: blocked(release, name))
    release.stays("the old cluster is the active one", lambda: upgrading(release), 2 * FAILED_SECONDS)
    assert watch.blocked.keys() == {name}
    late = watch.blocked[name] - watch.failed[name]
    note("held", f"{watch.blocked[name]:.0f} s after the upgrade began, {late:.0f} s after {name} failed")
    assert late < LONGEST_TO_BLOCKED


def tag(release):
    """Return the tag of the image that Ray runs."""
    head = release.get("rayservice", release.name)["spec"]["rayClusterConfig"]["headGroupSpec"]
    return head["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]


@pytest.fixture
def other_tag(release):
    """Another tag of the same image, so that all pods are new."""
    kind.add_tag(serve_image().name, "next")
    return "dev" if tag(release) == "next" else "next"


def test_an_upgrade_is_held_by_the_one_model_that_is_missing_and_goes_on_without_that_fault(
    release, models, install, other_tag, long_requests, note
):
    def failing():
        return release.get("modelendpoint", "failing").get("status", {})

    # It failed before, so it does not hold the upgrade, and is tried again afterwards.
    release.apply(endpoint("failing", uri="file:///models/nowhere"))
    release.wait_for("it fails", lambda: failing().get("lastError"))
    with undisturbed(release, models, note) as watch:
        install({"image": {"tag": other_tag}, "ray": without_topic()})
        release.wait_for("a second cluster is prepared", lambda: upgrading(release))
        is_held(release, watch, "topic", note)
        assert "/models/topic" in blocked(release, "topic")
        held = pending(release)
        with long_requests() as long:
            install({"image": {"tag": other_tag}, "profiles": two_workers()})
            is_promoted(release, watch, note)
        assert watch.blocked.keys() == {"topic"}
        # KubeRay gives up the cluster that held, and prepares another one.
        assert len(watch.clusters) == 2
        assert held not in watch.clusters
        assert not blocked(release, "topic")
        attempts = failing()["rollout"]["attempts"]
        note("attempts before it was tried again", attempts)
        release.wait_for("it is tried again", lambda: failing()["rollout"]["attempts"] > attempts)
    release.delete("failing")
    images = {pod["spec"]["containers"][0]["image"] for pod in release.pods()}
    assert {image.rpartition(":")[2] for image in images} == {other_tag}
    note("long requests", f"{long.statuses.total()}, the longest {long.slowest:.0f} s")
    assert long.failures == []
    assert long.slowest > LONG_SECONDS / 2


def without_topic():
    """Return the values of Ray's pods with an empty folder in the place of one model."""
    ray = yaml.safe_load(VALUES.read_text())["ray"]
    volume = {"name": "empty", "emptyDir": {}}
    mount = {"name": "empty", "mountPath": "/models/topic"}
    return {"volumes": [*ray["volumes"], volume], "volumeMounts": [*ray["volumeMounts"], mount]}


def two_workers():
    """Return the profiles with two workers that are always there, on two nodes, for the tests that follow."""
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    more = {"minWorkers": 2, "maxWorkers": 4, "topologySpreadConstraints": [spread]}
    profiles = yaml.safe_load(VALUES.read_text())["profiles"]
    return [each | more if each["name"] == "cpu" else each for each in profiles]


@pytest.fixture
def long_requests(release):
    """A function that sends requests one after another, each of which takes about LONG_SECONDS."""
    limits = {"requestTimeoutSeconds": 10 * LONG_SECONDS}
    model = {"uri": "file:///models/random-seq2seq", "task": "summarization"}
    release.apply(endpoint("long", **model, limits=limits))
    release.wait_ready("long")

    def body(tokens):
        return {"text": "a sentence", "parameters": {"min_length": tokens, "max_length": tokens}}

    tried = 200
    release.wait_for("it answers", lambda: release.answers("long", body(tried)), seconds=60)
    started = time.monotonic()
    assert release.answers("long", body(tried))
    tokens = min(MAX_NEW_TOKENS, int(tried * LONG_SECONDS / (time.monotonic() - started)))
    yield lambda: load_on(f"{release.http.base_url}/v2/models/long/predict", body(tokens), clients=1)
    release.delete("long")


def is_promoted(release, watch, note):
    """Check that another Ray cluster becomes the active one and that the old one goes."""
    release.wait_for(
        "another cluster is the active one", lambda: len(watch.clusters) > 1, seconds=PROMOTED_SECONDS
    )
    note("promoted", f"after {time.monotonic() - watch.began:.0f} s")
    release.wait_for(
        "the old cluster is gone",
        lambda: len(release.get("rayclusters")["items"]) == 1,
        seconds=REMOVED_SECONDS,
    )
    assert not upgrading(release)
