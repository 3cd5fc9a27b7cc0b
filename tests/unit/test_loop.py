"""The loop against a cluster of plain values: what it writes, in which order, and when it writes nothing."""

import asyncio

import pytest

from endpoint_operator.controller.decide import desired
from endpoint_operator.controller.decide.readiness import evaluate
from endpoint_operator.controller.observe import IncompleteListError
from endpoint_operator.kube.errors import KubeError
from endpoint_operator.serveconfig.document import to_document
from tests.harness.builders import run, until
from tests.unit.small_loop import Scene


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path, "a", "b", settle_seconds=0, failed_seconds=0)


def test_the_document_comes_before_the_statuses_that_speak_of_it(scene):
    async def story():
        assert (await scene.reconcile())[0] == "document"

    run(story())


def test_what_is_right_is_not_written_again(scene):
    async def story():
        await scene.serve()
        assert await scene.reconcile() == []
        scene.reconciler.endpoint_changed("a", "unknown")
        assert await scene.reconcile() == []

    run(story())


@pytest.mark.parametrize("call", ["list", "service"])
def test_nothing_is_written_if_something_could_not_be_read(scene, call):
    async def story():
        scene.client.errors[call] = KubeError("no")
        with pytest.raises(KubeError):
            await scene.reconciler.reconcile()
        assert scene.client.written == []

    run(story())


def test_endpoints_of_another_runtime_are_left_alone(tmp_path):
    async def story():
        scene = Scene(tmp_path, "a", "b", "c", default_runtime=False)
        scene.world.endpoints["a"]["spec"]["runtime"] = "ray"
        scene.world.endpoints["b"]["spec"]["runtime"] = "another"
        await scene.serve()
        assert list(scene.world.entries) == ["a", "gateway"]
        assert [name for name, stored in scene.world.endpoints.items() if "status" in stored] == ["a"]

    run(story())


def test_one_that_moves_to_another_runtime_leaves(scene):
    async def story():
        await scene.serve()
        scene.world.change("a")
        scene.world.endpoints["a"]["spec"]["runtime"] = "another"
        scene.reconciler.endpoint_changed("a", "new")
        assert await scene.reconcile() == ["document"]
        assert list(scene.world.entries) == ["b", "gateway"]

    run(story())


def test_an_error_of_the_operator_s_own_is_logged_once(scene, monkeypatch, caplog):
    async def story():
        await scene.serve()
        monkeypatch.setattr(desired, "evaluate", lambda given: evaluate_all_but_a(given))
        for _ in range(3):
            await scene.reconcile()

    def evaluate_all_but_a(given):
        if (
            given.selected.entry is not None
            and '"name":"a"' in given.selected.entry
            and not given.selected.reason
        ):
            raise ZeroDivisionError
        return evaluate(given)

    run(story())
    assert [record.message.splitlines()[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "Nothing could be decided about a; its entry stays:"
    ]


@pytest.mark.parametrize("hidden", [{"a"}, {"a", "b"}])
def test_a_list_that_lacks_what_exists_removes_nothing(scene, hidden):
    async def story():
        await scene.serve()
        before = scene.world.document
        scene.client.hidden = hidden
        scene.reconciler.endpoint_deleted()
        with pytest.raises(IncompleteListError):
            await scene.reconcile()
        assert scene.world.document == before
        assert scene.metric("incomplete_lists_total") == 1

    run(story())


def test_nothing_leaves_while_the_kind_itself_is_removed(scene):
    async def story():
        await scene.serve()
        before = scene.world.document
        del scene.world.endpoints["a"]
        scene.client.crd_is_terminating = True
        scene.reconciler.endpoint_deleted()
        with pytest.raises(IncompleteListError, match="the kind ModelEndpoint is being removed"):
            await scene.reconcile()
        assert scene.world.document == before

    run(story())


def test_what_is_really_gone_leaves(scene):
    async def story():
        await scene.serve()
        del scene.world.endpoints["a"]
        scene.reconciler.endpoint_deleted()
        assert await scene.reconcile() == ["document"]
        assert list(scene.world.entries) == ["b", "gateway"]

    run(story())


def test_nothing_leaves_before_everything_was_listed_anew(scene):
    async def story():
        await scene.serve()
        lists = scene.client.lists
        # Nothing was heard of it; another document has it.
        strangers = {"stranger": '{"name":"stranger"}'}
        scene.world.service["spec"]["serveConfigV2"] = to_document(strangers)
        await scene.reconcile()
        assert scene.client.lists == lists + 1
        assert list(scene.world.entries) == ["a", "b", "gateway"]

    run(story())


def test_an_edit_by_hand_is_undone_with_an_event(scene):
    async def story():
        await scene.serve()
        before = scene.world.document
        scene.world.service["spec"]["serveConfigV2"] = before.replace("sentiment", "other")
        await scene.reconcile()
        assert scene.world.document == before
        assert scene.client.events.count("DriftCorrected") == 1
        assert scene.metric("drifts_corrected_total") == 1

    run(story())


def test_a_thousand_changes_do_not_make_a_thousand_events(tmp_path):
    async def story():
        scene = Scene(tmp_path, *(f"m{number}" for number in range(100)))
        await scene.reconcile()
        assert len(scene.client.events) < 30
        assert scene.metric("events_dropped_total") > 70

    run(story())


def test_what_a_watch_has_missed_is_found_at_the_next_resync(tmp_path):
    async def story():
        scene = Scene(tmp_path, "a", resync_seconds=0.05, serve_api_seconds=0.01)
        loop = asyncio.create_task(scene.reconciler.run())
        await until(lambda: scene.client.lists == 1)
        scene.world.create("b")
        await until(lambda: "b" in scene.client.written)
        loop.cancel()

    run(story())


def test_our_own_writes_bring_no_new_list(scene):
    async def story():
        await scene.serve()
        lists = scene.client.lists
        for name, stored in scene.world.endpoints.items():
            scene.reconciler.endpoint_changed(name, stored["metadata"]["resourceVersion"])
        await scene.reconcile()
        assert scene.client.lists == lists

    run(story())


def test_the_loop_goes_on_after_errors_and_only_success_counts_as_life(scene):
    async def story():
        scene.client.errors["list"] = KubeError("no", retry_after=0)
        loop = asyncio.create_task(scene.reconciler.run())
        await until(lambda: scene.metric("reconcile_errors_total") >= 1)
        silent = scene.heartbeat.age
        assert silent > 0
        scene.client.errors.clear()
        await until(lambda: "document" in scene.client.written)
        loop.cancel()

    run(story())


def test_what_the_api_server_wants_to_be_spared_is_kept(scene):
    async def story():
        scene.client.errors["list"] = KubeError("busy", retry_after=60)
        loop = asyncio.create_task(scene.reconciler.run())
        await until(lambda: scene.metric("reconcile_errors_total") == 1)
        await asyncio.sleep(1.2)
        assert scene.metric("reconcile_errors_total") == 1
        loop.cancel()

    run(story())


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://ray-serve-svc.models.svc:8000/v2/models/a"),
        ({"service_port": 80}, "http://ray-serve-svc.models.svc:80/v2/models/a"),
        ({"external_url": "https://models.example.com/"}, "https://models.example.com/v2/models/a"),
    ],
)
def test_the_address_in_a_status_is_the_one_at_which_clients_reach_it(tmp_path, settings, url):
    async def story():
        scene = Scene(tmp_path, "a", **settings)
        await scene.serve()
        assert scene.world.status("a")["url"] == url

    run(story())


def test_nothing_leaves_while_the_kind_is_removed_though_a_finalizer_holds_it(scene):
    async def story():
        await scene.serve()
        scene.client.crd_is_terminating = True
        leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "77"}
        scene.world.endpoints["a"]["metadata"] |= leaving
        scene.reconciler.endpoint_changed("a", "77")
        with pytest.raises(IncompleteListError):
            await scene.reconcile()
        assert "a" in scene.world.entries

    run(story())


def test_an_edited_document_with_applications_of_impossible_names_is_put_right(scene):
    async def story():
        await scene.serve()
        before = scene.world.document
        strangers = {"": '{"name":""}', "a/status": '{"name":"a/status"}'}
        scene.world.service["spec"]["serveConfigV2"] = to_document(strangers)
        await scene.reconcile()
        assert scene.world.document == before

    run(story())
