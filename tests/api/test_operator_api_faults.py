"""The API server fails in every way that the operator can meet; it waits, loses nothing, and catches up."""

import itertools

import httpx
import pytest

from tests.harness.api_server.faults import Answer, CutAfter, Delay, EndWatch, GoneEvent, Hang

DOCUMENT_WRITE = {"methods": ("PATCH",), "path": "/rayservices/"}
STATUS_WRITE = {"methods": ("PATCH",), "path": "/status$"}
# After the API server is back.
CATCH_UP_SECONDS = 30


@pytest.mark.parametrize("seconds", [3, 60])
def test_an_api_server_that_refuses_connections_is_waited_for(scene, seconds):
    scene.begin("a", "b")
    before = scene.service.document
    with scene.proxy.cut():
        scene.create("c")
        scene.delete("b")
        scene.stays(lambda: scene.operator.running and scene.service.document == before, seconds)
    scene.serving("a", "c", seconds=CATCH_UP_SECONDS)
    assert scene.service.entries.keys() == {"a", "c", "gateway"}


def test_an_api_server_that_dies_and_comes_back_is_waited_for(scene, api_server):
    scene.begin("a")
    api_server.kill_api_server()
    with pytest.raises(httpx.ConnectError):
        scene.endpoints()
    api_server.start_api_server()
    scene.create("b")
    scene.serving("a", "b", seconds=CATCH_UP_SECONDS)


def test_it_starts_without_an_api_server_and_works_once_there_is_one(scene):
    scene.create("a")
    with scene.proxy.cut():
        scene.operator.start()
        scene.stays(lambda: not scene.documents(), seconds=4)
    scene.restart_if_ended()
    scene.serving("a", seconds=CATCH_UP_SECONDS)


@pytest.mark.parametrize("status", [429, 503])
def test_a_write_that_is_answered_with_an_error_is_tried_again_after_pauses(scene, status):
    scene.begin("a")
    before = len(scene.events("ray"))
    with scene.proxy.suffering(Answer(status, **DOCUMENT_WRITE)):
        first = len(scene.proxy.requests)
        scene.create("b")
        scene.stays(lambda: scene.operator.running, seconds=5)
        tries = [r.at for r in scene.proxy.requests[first:] if r.method == "PATCH" and "/rayserv" in r.path]
    assert 2 <= len(tries) <= 8
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert max(gaps) > 2 * min(gaps) or min(gaps) >= 1
    scene.serving("a", "b", seconds=CATCH_UP_SECONDS)
    assert len(scene.events("b")) + len(scene.events("ray")) - before <= 3


def test_retry_after_is_kept(scene):
    scene.begin("a")
    with scene.proxy.suffering(Answer(429, retry_after=3, times=1, **DOCUMENT_WRITE)):
        first = len(scene.proxy.requests)
        scene.create("b")
        scene.serving("a", "b")
    tries = [r.at for r in scene.proxy.requests[first:] if r.method == "PATCH" and "/rayserv" in r.path]
    assert tries[1] - tries[0] >= 3


@pytest.mark.parametrize("status", [429, 503])
def test_an_api_server_that_answers_nothing_but_errors_is_waited_for(scene, status):
    scene.begin("a")
    before = scene.service.document
    with scene.proxy.suffering(Answer(status), GoneEvent(watch=True, times=2)):
        scene.create("b")
        scene.stays(lambda: scene.service.document == before, seconds=3)
    scene.restart_if_ended()
    scene.serving("a", "b", seconds=CATCH_UP_SECONDS)


def test_a_conflict_is_met_with_another_look_and_the_others_field_stays(scene):
    scene.begin("a")
    with scene.proxy.suffering(Answer(409, times=2, **DOCUMENT_WRITE)):
        first = len(scene.proxy.requests)
        scene.create("b")
        scene.service.edit(excludeHeadPodFromServeSvc=True)
        scene.serving("a", "b")
        tries = [r for r in scene.proxy.requests[first:] if r.method == "PATCH" and "/rayserv" in r.path]
    assert len(tries) == 3
    assert scene.service.stored["spec"]["excludeHeadPodFromServeSvc"] is True


def test_a_write_that_meets_a_newer_object_loses_no_ones_field(scene):
    scene.begin("a")
    with scene.proxy.suffering(Delay(0.5, **DOCUMENT_WRITE)):
        scene.create("b")
        for number in range(10):
            scene.service.edit(serviceUnhealthySecondThreshold=100 + number)
        scene.serving("a", "b")
    assert scene.service.stored["spec"]["serviceUnhealthySecondThreshold"] == 109


@pytest.mark.parametrize("fault", [Answer(410, watch=True, times=4), GoneEvent(watch=True, times=4)])
def test_a_watch_that_is_too_old_leads_to_a_new_list_and_to_no_deletion(scene, fault):
    scene.begin("a", "b")
    with scene.proxy.suffering(EndWatch(0.3, watch=True), fault):
        scene.create("c")
        scene.delete("b")
        scene.serving("a", "c", seconds=CATCH_UP_SECONDS)
    scene.create("d")
    scene.serving("a", "c", "d", seconds=CATCH_UP_SECONDS)


def test_a_watch_that_falls_silent_is_made_up_for(scene):
    scene.begin("a")
    with scene.proxy.suffering(Hang(watch=True, times=2)):
        scene.create("b")
        scene.serving("a", "b", seconds=CATCH_UP_SECONDS)
    scene.create("c")
    scene.serving("a", "b", "c", seconds=CATCH_UP_SECONDS)


def test_when_all_hangs_the_probe_fails_and_afterwards_it_heals(scene):
    scene.begin("a")
    assert scene.operator.is_alive()
    with scene.proxy.suffering(Hang()):
        scene.create("b")
        scene.until(lambda: not scene.operator.is_alive())
    scene.restart_if_ended()
    scene.serving("a", "b", seconds=60)
    scene.until(scene.operator.is_alive)


def test_watches_that_end_every_second_lose_nothing_and_cost_little(scene):
    scene.begin("a")
    with scene.proxy.suffering(EndWatch(1)):
        before = scene.operator.cpu_seconds
        for number in range(8):
            scene.create(f"b-{number}")
            scene.stays(lambda: scene.operator.running, seconds=1)
        assert scene.operator.cpu_seconds - before < 4
        scene.serving("a", *(f"b-{number}" for number in range(8)), seconds=CATCH_UP_SECONDS)


def test_connections_that_break_in_the_middle_of_answers_lose_nothing(scene):
    scene.begin("a")
    with scene.proxy.suffering(CutAfter(300, times=10)):
        scene.create("b")
        scene.delete("a")
        scene.stays(lambda: scene.operator.running, seconds=3)
    scene.serving("b", seconds=CATCH_UP_SECONDS)


def test_a_status_that_cannot_be_written_holds_up_no_document(scene):
    scene.begin("a")
    for status in (403, 404, 409, 422, 500):
        with scene.proxy.suffering(Answer(status, **STATUS_WRITE)):
            scene.create(f"b-{status}")
            scene.until(scene.converged)
            scene.change("a", limits={"maxQueuedRequests": status})
            scene.until(scene.converged)
            assert scene.operator.running
        scene.serving("a", f"b-{status}", seconds=CATCH_UP_SECONDS)


def test_an_api_server_that_is_slow_is_no_reason_to_write_twice(scene):
    scene.begin("a")
    before = len(scene.documents())
    with scene.proxy.suffering(Delay(0.5)):
        scene.create("b", "c")
        scene.serving("a", "b", "c")
    assert len(scene.documents()) - before <= 2
