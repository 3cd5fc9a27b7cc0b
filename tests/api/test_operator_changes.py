"""Endpoints come, change and go: what the document and the statuses make of it, one at a time and at once."""

import json
import threading
import time

import pytest

from tests.harness.kuberay.serve import fails_to_start, runs, waits

SENTIMENT = "file:///models/sentiment"


def test_without_endpoints_there_is_the_gateway(scene):
    scene.operator.start()
    scene.until(lambda: scene.service.entries.keys() == {"gateway"})
    scene.until(lambda: scene.service.condition("Ready")[0] == "True")


def test_an_endpoint_is_served_and_says_where(scene):
    scene.begin("a")
    status = scene.status("a")
    assert (status["application"], status["profile"]) == ("a", "cpu")
    assert status["url"].endswith("/v2/models/a")
    assert {kind: scene.condition("a", kind)[0] for kind in ("Accepted", "Reconciling", "Stalled")} == {
        "Accepted": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }


def test_a_suspended_endpoint_leaves_and_comes_back(scene):
    scene.begin("a", "b")
    scene.change("a", suspend=True)
    scene.until(lambda: scene.service.entries.keys() == {"b", "gateway"})
    scene.until(lambda: scene.condition("a", "Reconciling") == ("False", "Suspended"))
    scene.change("a", suspend=False)
    scene.serving("a", "b")


@pytest.mark.parametrize(
    ("resources", "reason"),
    [({"profile": "nowhere"}, "ProfileNotFound"), ({"memory": "999Gi"}, "ExceedsProfile")],
)
def test_an_endpoint_that_fits_nowhere_says_so_and_changes_no_others_byte(scene, resources, reason):
    scene.begin("a")
    before = scene.service.document
    scene.create("b", resources=resources)
    scene.until(lambda: scene.condition("b", "Accepted") == ("False", reason))
    assert scene.condition("b") == ("False", reason)
    assert scene.service.document == before


def test_an_endpoint_whose_change_fits_nowhere_keeps_its_last_good_entry(scene):
    scene.begin("a")
    before = scene.service.document
    scene.change("a", resources={"profile": "nowhere"})
    scene.until(lambda: scene.condition("a", "Accepted") == ("False", "ProfileNotFound"))
    assert scene.service.document == before


def test_an_invalid_endpoint_that_got_past_the_crd_says_so(scene):
    scene.begin("a")
    before = scene.service.document
    # The CRD has the parameters of all tasks; the operator knows those of each.
    scene.create("b", model={"parameters": {"pooling": "mean"}})
    scene.until(lambda: scene.condition("b", "Accepted") == ("False", "InvalidSpec"))
    assert "pooling" in json.dumps(scene.status("b"))
    assert scene.service.document == before


def test_a_profile_that_is_added_lets_an_endpoint_in(scene):
    scene.begin("a")
    scene.create("b", resources={"profile": "gpu-new"})
    scene.until(lambda: scene.condition("b") == ("False", "ProfileNotFound"))
    scene.operator.add_profile({"name": "gpu-new", "accelerators": 1, "cpus": 8, "memory": "16Gi"})
    scene.until(lambda: scene.is_ready("b"))


def test_the_list_of_sources_decides_what_is_served_and_an_edit_takes_effect(scene):
    scene.begin("a")
    before = scene.service.document
    scene.operator.allow_sources("file:///models", "hf://other")
    scene.create("b", model={"uri": "hf://org/name"})
    scene.until(lambda: scene.condition("b", "Accepted") == ("False", "SourceNotAllowed"))
    assert scene.status("b")["lastError"] == (
        "model.uri: hf://org/name is no allowed source; sources.allow of the chart has file:///models, hf://other"
    )
    assert scene.service.document == before
    scene.operator.allow_sources("file:///models", "hf://org")
    scene.serving("a", "b")
    scene.may_leave.add("a")
    scene.operator.allow_sources("hf://org")
    scene.until(lambda: scene.service.entries.keys() == {"b", "gateway"})
    scene.until(lambda: scene.condition("a") == ("False", "SourceNotAllowed"))
    assert scene.is_ready("b")
    scene.operator.allow_sources()
    scene.serving("a", "b")


def test_deleted_while_it_deploys_it_leaves_and_the_others_stay(scene):
    scene.begin("a")
    entry = scene.service.entries["a"]
    scene.ray.outcomes["b"] = waits("b", {"GPU": 1.0}, {})
    scene.create("b")
    scene.until(lambda: scene.service.states().get("b") == "DEPLOYING")
    scene.delete("b")
    scene.until(lambda: scene.service.entries.keys() == {"a", "gateway"})
    assert scene.names() == {"a"}
    assert scene.service.entries["a"] == entry


def test_created_again_under_its_name_it_starts_anew(scene):
    scene.begin("a")
    scene.ray.outcomes["file:///models/new"] = runs(after=20)
    scene.delete("a")
    scene.create("a", model={"uri": "file:///models/new"})
    scene.until(lambda: "models/new" in scene.service.document)
    # The old one ran; nothing of that is said of the new one.
    scene.stays(lambda: not scene.is_ready("a"), seconds=5 * scene.ray.cycle)
    assert scene.status("a").get("lastGood") is None
    scene.serving("a")


def test_created_again_under_its_name_it_does_not_go_back_to_the_old_ones_version(scene):
    scene.begin("a", "b")
    scene.may_leave.add("a")
    scene.ray.outcomes["file:///models/broken"] = fails_to_start("ValueError: no")
    scene.delete("a")
    scene.create("a", model={"uri": "file:///models/broken"})
    scene.until(lambda: scene.condition("a") == ("False", "Withdrawn"))
    scene.until(lambda: scene.service.entries.keys() == {"b", "gateway"})


def test_an_endpoint_that_never_stops_changing_starves_no_other(scene):
    scene.begin("a")
    ended = threading.Event()
    changing = threading.Thread(target=keep_changing, args=(scene, ended))
    before = len(scene.documents())
    changing.start()
    started = time.monotonic()
    scene.create("b")
    scene.until(lambda: "b" in scene.service.entries)
    scene.stays(lambda: scene.operator.running, seconds=5)
    ended.set()
    changing.join()
    seconds = time.monotonic() - started
    scene.serving("a", "b")
    assert len(scene.documents()) - before <= 4 * seconds + 2


def keep_changing(scene, ended):
    number = 0
    while not ended.wait(0.005):
        number += 1
        scene.change("a", limits={"maxQueuedRequests": 1000 + number})


def test_a_change_back_and_forth_that_nobody_saw_is_not_written(scene):
    scene.begin("a")
    before = len(scene.writes)
    for _ in range(20):
        scene.change("a", limits={"maxQueuedRequests": 7})
        scene.change("a", limits={"maxQueuedRequests": 256})
    scene.serving("a")
    scene.stays(scene.converged, seconds=2)
    assert len(scene.writes) - before <= 4


def test_when_all_is_done_nothing_more_is_written(scene):
    scene.begin("a", "b")
    scene.settle()
    before = len(scene.proxy.writes())
    scene.stays(lambda: len(scene.proxy.writes()) == before, seconds=5)


def test_a_label_or_an_annotation_is_no_reason_to_write(scene):
    scene.begin("a")
    scene.settle()
    before = len(scene.proxy.writes())
    scene.label("a", team="blue")
    scene.stays(lambda: len(scene.proxy.writes()) == before, seconds=2)


@pytest.mark.timeout(300)
def test_a_thousand_at_once_take_few_writes_and_fit_into_one_object(scene, record_property):
    scene.ray.outcomes.update({SENTIMENT: runs(after=1)})
    scene.begin("first")
    before, started = len(scene.writes), time.monotonic()
    names = [f"model-{number:04}" for number in range(1000)]
    scene.create_many(names)
    created = time.monotonic()
    scene.until(lambda: len(scene.service.entries) == 1002, seconds=120)
    written = time.monotonic()
    scene.until(lambda: scene.all_ready(), seconds=180)
    figures = {
        "seconds to create": created - started,
        "seconds from the last creation to the document": written - created,
        "seconds from the last creation to all Ready": time.monotonic() - created,
        "writes": len(scene.writes) - before,
        "bytes of the document": len(scene.service.document),
        "MiB resident": scene.operator.resident_bytes / 2**20,
    }
    for name, value in figures.items():
        record_property(name, value)
        print(f"{name}: {value:.1f}")
    assert figures["writes"] <= 10
    assert figures["bytes of the document"] < 700_000
