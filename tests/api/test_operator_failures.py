"""A model fails, or Ray refuses the document: the one goes back, the others keep every byte."""

import pytest

from tests.harness.kuberay.controller import TimesOut
from tests.harness.kuberay.serve import fails_to_build, fails_to_start, runs
from tests.harness.kuberay.status import now

BROKEN = {"uri": "file:///models/broken"}
POISON = {"uri": "file:///models/poison"}
ERROR = "serve_app.loading.sources.SourceError: file:///models/broken: there is no folder /models/broken"


@pytest.fixture
def broken(scene):
    """A model that no replica can load."""
    scene.ray.outcomes[BROKEN["uri"]] = fails_to_start(ERROR)


def others(document):
    return {name: entry for name, entry in document.items() if name != "a"}


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("with_dashboard", [True, False])
def test_a_version_that_stays_failed_is_taken_back_to_the_last_good_one(scene, with_dashboard):
    scene.begin("a", "b")
    good = scene.service.entries
    scene.change("a", model=BROKEN)
    scene.until(lambda: scene.service.entries["a"] != good["a"])
    assert others(scene.service.entries) == others(good)
    scene.until(lambda: scene.condition("a", "Stalled") == ("True", "RolledBack"))
    assert scene.condition("a") == ("False", "RolledBack")
    # The verdict is stored first, so that a restart in between cannot lose it.
    scene.until(lambda: scene.service.entries == good)
    assert "there is no folder /models/broken" in scene.status("a")["lastError"]
    assert "Traceback" not in scene.status("a")["lastError"]
    scene.until(lambda: "RolledBack" in scene.events("a"))
    assert scene.is_ready("b")


@pytest.mark.usefixtures("broken")
def test_a_version_that_was_taken_back_is_tried_again_later_and_a_restart_changes_nothing_of_it(scene):
    scene.begin("a")
    good = scene.service.entries
    scene.change("a", model=BROKEN)
    scene.until(lambda: scene.condition("a") == ("False", "RolledBack"))
    scene.until(lambda: scene.service.entries == good)
    due = scene.status("a")["rollout"]["nextAttemptTime"]
    scene.operator.kill()
    scene.operator.start()
    scene.until(scene.operator.is_alive)
    # Had the new process tried it at once, it would run too early.
    scene.ray.outcomes[BROKEN["uri"]] = runs()
    scene.serving("a")
    assert due <= now()


def test_what_has_run_comes_back_by_itself_after_a_passing_fault(scene):
    scene.begin("a", "b")
    good = scene.service.entries
    scene.may_leave.add("a")
    # Ray's head is lost while the hub does not answer.
    scene.ray.outcomes["a"] = fails_to_start("SourceError: the hub answers 503")
    for serve in scene.ray.serve.values():
        serve.applications.clear()
    scene.until(lambda: scene.condition("a") == ("False", "DeployFailed"))
    scene.until(lambda: scene.status("a")["rollout"]["attempts"] == 2)
    assert scene.is_ready("b")
    scene.ray.outcomes.clear()
    scene.serving("a", "b")
    assert scene.service.entries == good
    assert scene.status("a")["rollout"]["attempts"] == 0


@pytest.mark.usefixtures("broken")
def test_a_suspension_and_its_end_are_a_new_attempt_at_once(scene):
    scene.begin("a")
    scene.may_leave.add("b")
    scene.create("b", model=BROKEN)
    scene.until(lambda: scene.condition("b", "Stalled") == ("True", "Withdrawn"))
    scene.ray.outcomes.clear()
    scene.change("b", suspend=True)
    scene.change("b", suspend=False)
    scene.serving("a", "b", seconds=8)


@pytest.mark.usefixtures("broken")
def test_the_way_back_is_known_after_a_restart(scene):
    scene.begin("a", "b")
    good = scene.service.entries
    scene.change("a", model=BROKEN)
    scene.until(lambda: scene.service.states().get("a") == "DEPLOY_FAILED")
    scene.operator.kill()
    scene.operator.start()
    scene.until(lambda: scene.condition("a") == ("False", "RolledBack"))
    scene.until(lambda: scene.service.entries == good)


@pytest.mark.usefixtures("broken")
def test_a_new_version_after_a_failure_is_tried(scene):
    scene.begin("a")
    scene.change("a", model=BROKEN)
    scene.until(lambda: scene.condition("a") == ("False", "RolledBack"))
    scene.change("a", model={"uri": "file:///models/mended"})
    scene.serving("a")
    assert scene.status("a")["lastError"] == ""


@pytest.mark.usefixtures("broken")
def test_a_model_that_has_never_run_is_withdrawn(scene):
    scene.begin("a")
    before = scene.service.entries
    scene.may_leave.add("b")
    scene.create("b", model=BROKEN)
    scene.until(lambda: "b" in scene.service.entries)
    scene.until(lambda: scene.condition("b", "Stalled") == ("True", "Withdrawn"))
    scene.until(lambda: scene.service.entries == before)
    assert scene.is_ready("a")
    scene.change("b", model={"uri": "file:///models/mended"})
    scene.serving("a", "b")


def test_a_build_that_fails_is_taken_back_too(scene):
    scene.begin("a")
    scene.ray.outcomes[BROKEN["uri"]] = fails_to_build("a", "ImportError: no module named 'x'")
    scene.change("a", model=BROKEN)
    scene.until(lambda: scene.condition("a") == ("False", "RolledBack"))
    assert "no module named 'x'" in scene.status("a")["lastError"]


def test_a_failure_that_heals_in_time_is_let_be(scene):
    scene.begin("a")
    scene.ray.outcomes[BROKEN["uri"]] = fails_to_start(ERROR)
    scene.change("a", model=BROKEN)
    scene.until(lambda: scene.condition("a") == ("False", "DeployFailed"))
    scene.ray.outcomes[BROKEN["uri"]] = runs()
    for serve in scene.ray.serve.values():
        serve.applications["a"].outcome = runs()
    scene.serving("a")
    assert scene.status("a")["lastGood"]["generation"] == 2


@pytest.mark.usefixtures("broken")
def test_a_service_that_was_deleted_comes_back_although_a_model_fails(scene):
    scene.begin("a")
    scene.may_leave.add("b")
    scene.create("b", model=BROKEN)
    scene.until(lambda: scene.service.states().get("b") == "DEPLOY_FAILED")
    scene.ray.delete_services()
    scene.until(lambda: scene.service.condition("Ready")[0] == "False")
    # Only without the failing one does KubeRay create it again.
    scene.until(lambda: scene.service.condition("Ready")[0] == "True")
    scene.until(lambda: scene.is_ready("a"))


@pytest.mark.parametrize("merged", [False, True])
def test_a_document_that_ray_refuses_is_taken_back_and_the_newest_change_is_marked(scene, merged):
    scene.begin("a", "b")
    if merged:
        # An event of the same reason was there before, and its note stays.
        scene.ray.merge_events()
        scene.ray.times_out = TimesOut.PUT
        scene.change("b", limits={"maxQueuedRequests": 7})
        scene.until(lambda: "FailedToUpdateServeApplications" in scene.events("ray"))
        scene.ray.times_out = TimesOut.NOTHING
        scene.serving("a", "b")
    good = scene.service.entries
    scene.may_leave.add("c")
    scene.ray.poison.add(POISON["uri"])
    scene.create("c", model=POISON)
    scene.until(lambda: scene.condition("c") == ("False", "RejectedByRay"))
    scene.until(lambda: scene.service.entries == good)
    scene.until(lambda: scene.is_ready("a", "b"))
    assert scene.condition("c", "Accepted") == ("False", "RejectedByRay")


def test_a_kuberay_that_gives_up_its_requests_gets_nobody_blamed(scene):
    scene.begin("a")
    scene.ray.times_out = TimesOut.PUT
    scene.change("a", batching={"maxBatchSize": 2})
    # Ray has taken it, and KubeRay does not know.
    scene.until(lambda: '"max_batch_size":2' in scene.ray.documents[-1])
    scene.until(lambda: scene.is_ready("a"))
    scene.stays(lambda: scene.converged() and scene.is_ready("a"), seconds=5)
    scene.ray.times_out = TimesOut.NOTHING
    scene.serving("a")


def test_running_of_the_version_before_is_not_taken_for_the_new_one_while_kuberay_s_requests_fail(scene):
    scene.begin("a")
    good = scene.status("a")["lastGood"]
    scene.ray.outcomes[BROKEN["uri"]] = runs(after=80)
    scene.change("a", model=BROKEN)
    scene.until(lambda: "broken" in scene.ray.documents[-1])
    # KubeRay's copy has the new generation and the old RUNNING.
    scene.until(
        lambda: scene.service.status["observedGeneration"] == scene.service.stored["metadata"]["generation"]
    )
    scene.ray.times_out = TimesOut.STATUS
    scene.stays(lambda: not scene.is_ready("a") and scene.status("a")["lastGood"] == good, seconds=3)
    scene.ray.times_out = TimesOut.NOTHING
    scene.serving("a")


def test_after_a_refusal_other_changes_get_through(scene):
    scene.begin("a")
    scene.may_leave.add("c")
    scene.ray.poison.add(POISON["uri"])
    scene.create("c", model=POISON)
    scene.until(lambda: scene.condition("c") == ("False", "RejectedByRay"))
    scene.create("d")
    scene.until(lambda: scene.is_ready("a", "d"))
    scene.change("c", model={"uri": "file:///models/mended"})
    scene.serving("a", "c", "d")


def test_a_change_that_ray_refuses_is_taken_back_to_the_last_good_version(scene):
    scene.begin("a", "b")
    good = scene.service.entries
    scene.ray.poison.add(POISON["uri"])
    scene.change("a", model=POISON)
    scene.until(lambda: scene.condition("a") == ("False", "RejectedByRay"))
    scene.until(lambda: scene.service.entries == good)
    scene.until(lambda: scene.is_ready("b"))
