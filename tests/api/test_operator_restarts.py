"""The operator ends at the worst moments, and whoever starts next finishes what was begun, once."""

import json
import random
import threading
import time

import pytest

from tests.harness.api_server.faults import CutAfter, Hang
from tests.harness.kuberay.serve import runs

# Before it is killed, a pod has 30 s.
GRACE_SECONDS = 10
DOCUMENT_WRITE = {"methods": ("PATCH",), "path": "/rayservices/"}
STATUS_WRITE = {"methods": ("PATCH",), "path": "/modelendpoints/"}


def hanging(scene, path):
    """Return the last write that did not get through."""
    held = [r for r in list(scene.proxy.requests) if r.method == "PATCH" and path in r.path and not r.passed]
    return held[-1] if held else None


def test_killed_before_its_write_the_next_one_writes_the_same_bytes_once(scene):
    scene.begin("a")
    before = len(scene.writes)
    with scene.proxy.suffering(Hang(**DOCUMENT_WRITE)):
        scene.create("b")
        lost = scene.until(lambda: hanging(scene, "/rayservices/"))
        scene.operator.kill()
    scene.operator.start()
    scene.serving("a", "b")
    [write] = scene.writes[before:]
    assert document_of(write) == document_of(lost)


def document_of(request):
    return json.loads(request.body)["spec"]["serveConfigV2"]


def test_killed_after_its_write_and_before_the_status_the_next_one_writes_only_the_status(scene):
    scene.begin("a")
    with scene.proxy.suffering(Hang(**STATUS_WRITE)):
        scene.create("b")
        scene.until(lambda: "b" in scene.service.entries and hanging(scene, "/modelendpoints/b/status"))
        scene.operator.kill()
        writes = len(scene.writes)
    scene.operator.start()
    scene.serving("a", "b")
    assert len(scene.writes) == writes


def test_an_answer_that_is_lost_leads_to_no_second_write(scene):
    scene.begin("a")
    before = len(scene.writes)
    with scene.proxy.suffering(CutAfter(0, times=1, **DOCUMENT_WRITE)):
        scene.create("b")
        scene.serving("a", "b")
    assert len(scene.writes) == before + 1


def test_killed_before_it_has_seen_anything_it_is_as_if_it_had_never_been(scene):
    scene.create("a")
    for pause in (0.2, 0.6, 1.0, 1.4):
        scene.operator.start()
        time.sleep(pause)
        scene.operator.kill()
    scene.operator.start()
    scene.serving("a")
    # The gateway alone, and then with the model.
    assert len(scene.documents()) == 2


def test_asked_to_end_in_the_middle_of_a_burst_it_ends_in_time_with_a_whole_document(scene):
    scene.begin("a")
    names = [f"burst-{number}" for number in range(60)]
    burst = threading.Thread(target=scene.create_many, args=(names,))
    burst.start()
    scene.until(lambda: len(scene.endpoints()) > 20)
    assert scene.operator.terminate(GRACE_SECONDS) == 0
    burst.join()
    assert {"a", "gateway"} <= scene.service.entries.keys()
    scene.operator.start()
    scene.serving("a", *names)


def test_a_restart_with_nothing_to_do_writes_nothing(scene):
    scene.begin("a", "b")
    scene.operator.kill()
    before = len(scene.proxy.writes())
    scene.operator.start()
    scene.until(lambda: scene.operator.is_alive())
    scene.stays(lambda: len(scene.proxy.writes()) == before, seconds=2)


def test_what_was_deleted_while_it_was_away_leaves_at_the_next_start(scene):
    scene.begin("a", "b")
    scene.operator.kill()
    scene.delete("b")
    # No finalizer holds it back.
    assert scene.names() == {"a"}
    scene.operator.start()
    scene.until(lambda: scene.service.entries.keys() == {"a", "gateway"})
    scene.serving("a")


def test_what_was_created_while_it_was_away_comes_at_the_next_start(scene):
    scene.begin("a")
    scene.operator.kill()
    scene.create("b")
    scene.change("a", limits={"maxQueuedRequests": 7})
    scene.operator.start()
    scene.serving("a", "b")
    assert len(scene.documents()) == 3


@pytest.mark.timeout(300)
def test_killed_fifty_times_while_a_hundred_endpoints_change_it_ends_in_the_right_document(scene):
    names = [f"m-{number:03}" for number in range(100)]
    scene.ray.outcomes.update(dict.fromkeys(names, runs(after=1)))
    scene.create_many(names)
    scene.operator.start()
    scene.serving(*names)
    dice = random.Random(5)
    ended = threading.Event()
    changes = threading.Thread(target=keep_changing, args=(scene, names, dice, ended))
    changes.start()
    for _ in range(50):
        # From before it has read a line to well into its work.
        time.sleep(dice.uniform(0.05, 2.5))
        scene.operator.kill()
        scene.operator.start()
    ended.set()
    changes.join()
    scene.serving(*scene.names(), seconds=60)
    assert len(set(scene.documents())) == len(scene.documents())


def keep_changing(scene, names, dice, ended):
    """Change, delete and create endpoints so that no moment is like an earlier one."""
    alive, number = list(names), 0
    while not ended.wait(0.05):
        number += 1
        kind = dice.random()
        if kind < 0.05:
            scene.delete(alive.pop(dice.randrange(len(alive))))
        elif kind < 0.1:
            alive.append(f"new-{number}")
            scene.create(alive[-1])
        else:
            scene.change(dice.choice(alive), limits={"maxQueuedRequests": 1000 + number})


def test_two_operators_at_once_neither_fight_nor_write_twice(scene, second):
    scene.begin("a")
    second.operator.start()
    scene.until(second.operator.is_alive)
    for number in range(5):
        scene.create(f"b-{number}")
        scene.change("a", limits={"maxQueuedRequests": 100 + number})
        scene.serving("a", *(f"b-{each}" for each in range(number + 1)))
    # The last answer of the dashboard to one of them may be older than what the other one has written.
    scene.settle(2)
    before = everything_written(scene)
    scene.stays(lambda: everything_written(scene) == before, seconds=3)
    accepted = [
        w for proxy in (scene.proxy, second.proxy) for w in proxy.writes("/rayserv") if w.status == 200
    ]
    assert len(accepted) == len(scene.documents()) == len(set(scene.documents()))
    assert len(scene.documents()) <= 12
    assert owners(scene) == {"model-endpoints-operator"}


def everything_written(scene):
    """Return the document and all statuses."""
    return scene.service.document, {item["metadata"]["name"]: item["status"] for item in scene.endpoints()}


def owners(scene):
    """Return the field managers that own the document."""
    return {
        entry["manager"]
        for entry in scene.service.stored["metadata"]["managedFields"]
        if "f:serveConfigV2" in entry["fieldsV1"].get("f:spec", {})
    }
