"""What the loop writes, in which order, and what happens to what cannot be written."""

import asyncio
import logging

import pytest

from endpoint_operator.controller.apply import differences
from endpoint_operator.kube.errors import ConflictError, InvalidError
from endpoint_operator.serveconfig.document import to_document
from tests.harness.builders import run
from tests.unit.small_loop import Scene
from tests.unit.small_world import FAILED


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path, "a", "b", settle_seconds=0, failed_seconds=0)


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


@pytest.mark.parametrize("refuses", [True, False])
def test_statuses_that_cannot_be_stored_hold_up_no_others(tmp_path, refuses):
    scene = Scene(tmp_path, *[f"m{number:03}" for number in range(250)])
    write = scene.client.apply_status

    async def an_older_definition(name, uid, resource_version, status):
        if refuses and name < "m200":
            raise InvalidError("no")
        kept = {key: status[key] for key in status if key != "rollout"}
        return await write(name, uid, resource_version, kept)

    scene.client.apply_status = an_older_definition

    async def story():
        for _ in range(3):
            result = await scene.reconciler.reconcile()
        assert not result.requeue
        assert "status" in scene.world.endpoints["m249"]
        scene.client.written.clear()
        await scene.reconcile()
        assert scene.client.written == []

    run(story())


@pytest.mark.parametrize("error", [InvalidError("403"), TypeError("cannot be serialized")])
def test_a_verdict_that_cannot_be_stored_concerns_nobody_else_and_is_not_forgotten(scene, error):
    async def story():
        await scene.serve()
        scene.world.change("a", model={"uri": "file:///models/broken"})
        scene.reconciler.endpoint_changed("a", "new")
        await scene.reconcile()
        scene.world.follow(a=FAILED)
        scene.client.errors["a"] = error
        scene.world.create("d")
        scene.reconciler.endpoint_changed("d", "new")
        await scene.reconcile()
        assert "d" in scene.world.entries
        assert "broken" not in scene.world.entries["a"]
        scene.world.follow()
        assert "document" not in await scene.reconcile()

    run(story())


def test_a_refused_status_is_tried_again_after_a_while(tmp_path):
    async def story():
        scene = Scene(tmp_path, "a", resync_seconds=0.05)
        scene.client.errors["a"] = InvalidError("a webhook says no")
        await scene.reconcile()
        scene.client.errors.clear()
        await asyncio.sleep(0.1)
        assert "a" in await scene.reconcile()

    run(story())
