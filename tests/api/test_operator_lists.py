"""What looks like the end of many endpoints and is not: nothing is removed that is still wanted."""

import pytest

from endpoint_operator.api.types import PLURAL
from tests.harness.access import RULES, without
from tests.harness.api_server.crds import CRD_NAME, install_model_endpoints
from tests.harness.api_server.faults import Answer, CutAfter, GoneEvent, ShortList
from tests.harness.invariants import documents

NAMES = [f"m-{number}" for number in range(6)]
LISTS = {"methods": ("GET",), "path": f"/{PLURAL}$", "watch": False}


def all_stay(scene, seconds):
    scene.stays(lambda: scene.service.entries.keys() == {*NAMES, "gateway"}, seconds)


def relist(scene):
    """Make the operator list again: its watches are too old."""
    return scene.proxy.suffering(GoneEvent(watch=True, times=2))


@pytest.mark.parametrize("items", [0, 2])
def test_a_short_list_out_of_nowhere_removes_nothing(scene, items):
    scene.begin(*NAMES)
    with scene.proxy.suffering(ShortList(items, times=1, **LISTS)), relist(scene):
        all_stay(scene, seconds=3)
    scene.serving(*NAMES)


@pytest.mark.parametrize("items", [0, 2])
def test_a_short_list_at_the_start_removes_nothing(scene, items):
    scene.begin(*NAMES)
    scene.operator.kill()
    with scene.proxy.suffering(ShortList(items, times=1, **LISTS)):
        scene.operator.start()
        all_stay(scene, seconds=4)
    scene.serving(*NAMES)


def test_a_list_that_stays_empty_for_a_while_removes_nothing(scene):
    scene.begin(*NAMES)
    with scene.proxy.suffering(ShortList(0, **LISTS)), relist(scene):
        all_stay(scene, seconds=5)
    scene.create("another")
    scene.serving(*NAMES, "another")


@pytest.mark.parametrize("size", [0, 500])
def test_a_list_that_breaks_off_removes_nothing(scene, size):
    scene.begin(*NAMES)
    with scene.proxy.suffering(CutAfter(size, times=3, **LISTS)), relist(scene):
        all_stay(scene, seconds=3)
    scene.serving(*NAMES)


def test_rights_that_are_taken_away_remove_nothing_and_are_complained_of(scene):
    scene.begin(*NAMES)
    scene.account.allow(without("list", PLURAL))
    with relist(scene):
        all_stay(scene, seconds=4)
    scene.until(lambda: not scene.operator.is_alive())
    scene.account.allow(RULES)
    scene.restart_if_ended()
    scene.create("another")
    scene.serving(*NAMES, "another", seconds=60)


def test_without_the_right_to_watch_changes_are_met_at_the_next_look(scene):
    scene.begin(*NAMES)
    scene.account.allow(without("watch", PLURAL))
    with relist(scene):
        all_stay(scene, seconds=3)
    scene.create("another")
    scene.serving(*NAMES, "another", seconds=60)


def test_started_without_the_right_to_list_it_writes_nothing(scene):
    scene.begin(*NAMES)
    scene.operator.kill()
    scene.account.allow(without("list", PLURAL))
    scene.operator.start()
    all_stay(scene, seconds=4)
    scene.account.allow(RULES)
    scene.restart_if_ended()
    scene.serving(*NAMES, seconds=60)


def test_a_missing_list_is_no_empty_list(scene):
    scene.begin(*NAMES)
    with scene.proxy.suffering(Answer(404, path=f"/{PLURAL}$")), relist(scene):
        all_stay(scene, seconds=3)
    scene.restart_if_ended()
    scene.serving(*NAMES, seconds=60)


def test_all_that_are_really_deleted_are_removed(scene):
    scene.begin(*NAMES)
    scene.delete(*NAMES)
    scene.until(lambda: scene.service.entries.keys() == {"gateway"})


def test_most_that_are_really_deleted_while_it_was_away_are_removed(scene):
    scene.begin(*NAMES)
    scene.operator.kill()
    scene.delete(*NAMES[1:])
    scene.operator.start()
    scene.until(lambda: scene.service.entries.keys() == {NAMES[0], "gateway"})


def test_a_changed_crd_disturbs_nothing(scene, kubectl):
    scene.begin("a")
    before = len(scene.documents())
    column = [{"op": "add", "path": "/spec/versions/0/additionalPrinterColumns/-"}]
    column[0]["value"] = {"name": "Uri", "type": "string", "jsonPath": ".spec.model.uri", "priority": 1}
    kubectl("patch", CRD_NAME, "--type=json", f"--patch={column}".replace("'", '"'))
    try:
        scene.stays(lambda: len(scene.documents()) == before, seconds=2)
        scene.create("b")
        scene.serving("a", "b")
    finally:
        install_model_endpoints(kubectl)


def test_a_removed_crd_is_no_reason_to_remove_models(other_scene):
    scene, kubectl = other_scene
    scene.begin(*NAMES)
    before = scene.service.document
    # The last object holds the removal up, while the others are gone.
    hold = '{"metadata": {"finalizers": ["example.com/hold"]}}'
    kubectl("patch", f"{PLURAL}/{NAMES[-1]}", "--type=merge", f"--patch={hold}")
    kubectl("delete", CRD_NAME, "--wait=false")
    scene.stays(lambda: scene.service.document == before, seconds=5)
    kubectl("patch", f"{PLURAL}/{NAMES[-1]}", "--type=merge", '--patch={"metadata": {"finalizers": []}}')
    kubectl("wait", CRD_NAME, "--for=delete", "--timeout=30s")
    scene.stays(lambda: scene.service.document == before, seconds=5)
    install_model_endpoints(kubectl)
    scene.create(*NAMES)
    scene.restart_if_ended()
    scene.serving(*NAMES, seconds=60)
    assert documents(scene.history())[-1] == before
