"""The loop against a cluster of plain values: what it writes, in which order, and when it writes nothing."""

import asyncio
import logging

import pytest

from endpoint_operator.controller.apply import differences
from endpoint_operator.controller.decide import desired
from endpoint_operator.controller.decide.readiness import evaluate
from endpoint_operator.controller.observe import IncompleteListError
from endpoint_operator.kube.errors import ConflictError, InvalidError, KubeError
from endpoint_operator.serveconfig.document import to_document
from tests.harness.builders import run, until
from tests.unit.small_loop import Scene
from tests.unit.small_world import FAILED


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


def test_a_verdict_is_stored_before_the_document_follows_it(scene):
    async def story():
        await scene.serve()
        scene.world.change("a", model={"uri": "file:///models/broken"})
        scene.reconciler.endpoint_changed("a", "new")
        await scene.reconcile()
        scene.world.follow(a=FAILED)
        assert (await scene.reconcile())[:2] == ["a", "document"]

    run(story())


@pytest.mark.parametrize(("error", "goes_on"), [(ConflictError("x"), False), (InvalidError("x"), True)])
def test_a_verdict_that_may_still_be_stored_holds_the_document_up(scene, error, goes_on):
    async def story():
        await scene.serve()
        scene.world.change("a", model={"uri": "file:///models/broken"})
        scene.reconciler.endpoint_changed("a", "new")
        await scene.reconcile()
        failing = scene.world.document
        scene.world.follow(a=FAILED)
        scene.client.errors["a"] = error
        try:
            await scene.reconciler.reconcile()
        except ConflictError:
            assert not goes_on
        assert (scene.world.document != failing) == goes_on

    run(story())


def test_a_status_that_cannot_be_written_holds_nothing_else_up(scene):
    async def story():
        scene.client.errors["a"] = InvalidError("x")
        assert set(await scene.reconcile()) == {"document", "b"}

    run(story())


@pytest.mark.parametrize("call", ["list", "service"])
def test_nothing_is_written_if_something_could_not_be_read(scene, call):
    async def story():
        scene.client.errors[call] = KubeError("no")
        with pytest.raises(KubeError):
            await scene.reconciler.reconcile()
        assert scene.client.written == []

    run(story())


def test_statuses_are_written_although_the_document_is_refused(scene):
    async def story():
        scene.client.errors["document"] = InvalidError("etcdserver: request is too large")
        with pytest.raises(InvalidError):
            await scene.reconciler.reconcile()
        assert scene.client.written == ["a", "b"]

    run(story())


def test_a_status_that_kuberay_writes_in_between_holds_no_document_up(scene):
    async def story():
        await scene.serve()
        scene.world.change("a", model={"uri": "file:///models/other"})
        scene.reconciler.endpoint_changed("a", "new")
        scene.client.conflicts = 3
        assert "document" in await scene.reconcile()
        assert "other" in scene.world.document
        assert scene.metric("conflicts_total") == 3

    run(story())


@pytest.mark.parametrize("change", ["document", "uid"])
def test_a_document_is_not_written_over_what_somebody_else_has_written_in_between(scene, change):
    async def story():
        await scene.serve()
        scene.world.change("a", model={"uri": "file:///models/other"})
        scene.reconciler.endpoint_changed("a", "new")

        def change_it():
            if change == "document":
                scene.world.service["spec"]["serveConfigV2"] += " "
            else:
                scene.world.service["metadata"]["uid"] = "another"

        scene.client.conflicts, scene.client.on_conflict = 1, change_it
        with pytest.raises(ConflictError):
            await scene.reconciler.reconcile()
        assert "other" not in scene.world.document

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


def test_many_statuses_are_written_in_portions(tmp_path):
    async def story():
        scene = Scene(tmp_path, *(f"m{number}" for number in range(450)))
        portions = []
        requeue = True
        while requeue:
            scene.client.written.clear()
            requeue = (await scene.reconciler.reconcile()).requeue
            portions.append(len([name for name in scene.client.written if name != "document"]))
        assert portions == [200, 200, 50]

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


def test_the_log_says_what_changed_and_nothing_else(scene, caplog):
    async def story():
        await scene.serve()
        caplog.clear()
        await scene.reconcile()
        assert caplog.messages == []
        scene.world.change("a", model={"uri": "file:///models/other"})
        scene.world.create("c")
        del scene.world.endpoints["b"]
        scene.reconciler.endpoint_deleted()
        await scene.reconcile()

    with caplog.at_level(logging.INFO):
        run(story())
    size = len(scene.world.document)
    assert caplog.messages == [
        f"Wrote the Serve config, {size} bytes: new c; changed a; gone b.",
        "a: Deploying",
        "c: Deploying",
    ]


def test_a_long_list_of_changes_is_one_line():
    many = to_document({f"m{number:02}": f'{{"name":"m{number:02}"}}' for number in range(12)})
    expected = "new m00, m01, m02, m03, m04, m05, m06, m07, m08, m09 and 2 more"
    assert differences("", many) == expected
    assert differences(many, many) == "the same applications"


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
