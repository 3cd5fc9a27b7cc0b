"""The simulated KubeRay behaves as the real one, its traps included: nothing here runs our operator."""

import json

import pytest

from endpoint_operator.serveconfig.compiler import compile_serve_config
from tests.harness.kuberay.controller import Head
from tests.harness.kuberay.serve import fails_to_build, fails_to_start, runs, sick, waits
from tests.unit.builders import CLUSTER, endpoint


def test_without_a_document_it_puts_nothing_and_says_so(service, ray):
    service.until(lambda: service.events("FailedToUpdateServeApplications"))
    assert (ray.documents, service.states("pending")) == ([], {})


def test_a_document_brings_it_up(service, ray):
    service.running()
    service.until(lambda: service.condition("Ready") == ("True", "NonZeroServeEndpoints"))
    assert len(ray.documents) == 1
    assert service.events("UpdatedServeApplications")
    assert service.status["serviceStatus"] == "Running"


def test_an_application_that_fails_keeps_the_first_cluster_from_becoming_ready(service, ray):
    ray.outcomes["broken"] = fails_to_start("ValueError: no")
    service.serve(endpoint("broken"))
    expected = {"gateway": "RUNNING", "broken": "DEPLOY_FAILED"}
    service.until(lambda: service.states("pending") == expected)
    service.for_cycles(5)
    assert service.states() == {}
    assert service.condition("Ready") == ("False", "Initializing")


def test_on_an_active_cluster_a_failure_leaves_ready_true(service, ray):
    service.running(endpoint("a"))
    ray.outcomes["broken"] = fails_to_start("ValueError: no")
    service.serve(endpoint("a"), endpoint("broken"))
    service.until(lambda: service.states().get("broken") == "DEPLOY_FAILED")
    assert service.states()["a"] == "RUNNING"
    assert service.condition("Ready")[0] == "True"


def test_the_status_speaks_of_the_old_document_for_a_cycle(service, ray):
    service.running(endpoint("a"))
    ray.outcomes["file:///models/new"] = runs(after=20)
    service.serve(endpoint("a", model={"uri": "file:///models/new"}))
    generation = service.stored["metadata"]["generation"]
    service.until(lambda: service.status["observedGeneration"] == generation)
    assert service.states()["a"] == "RUNNING"
    service.until(lambda: service.states()["a"] == "DEPLOYING")


@pytest.mark.parametrize("document", ["{}", '{"applications": [{"name": "a"}]}', "a: [", "just text"])
def test_a_refused_document_freezes_the_status(service, ray, document):
    service.running(endpoint("a"))
    before = service.status
    service.write(document)
    service.until(lambda: service.events("FailedToUpdateServeApplications"))
    ray.outcomes["a"] = sick()
    service.for_cycles(5)
    assert service.status == before
    assert service.status["observedGeneration"] < service.stored["metadata"]["generation"]
    service.running(endpoint("b"))


def test_a_document_can_be_good_by_its_schema_and_be_refused(service, ray):
    service.running(endpoint("a"))
    ray.poison.add("file:///models/poison")
    service.serve(endpoint("a"), endpoint("b", model={"uri": "file:///models/poison"}))
    service.until(lambda: ray.refusals)
    assert service.states() == {"gateway": "RUNNING", "a": "RUNNING"}


def test_a_refused_document_is_put_again_with_growing_pauses_and_counted_in_one_event(service, ray):
    service.running()
    service.write("{}")
    service.until(lambda: ray.refusals >= 4)
    [event] = service.events("FailedToUpdateServeApplications")
    service.until(lambda: service.events("FailedToUpdateServeApplications")[0]["count"] > event["count"])
    assert "applications" in event["message"]


def test_the_same_document_is_put_once_and_another_text_of_it_again(service, ray):
    service.running(endpoint("a"))
    service.for_cycles(5)
    assert len(ray.documents) == 1
    service.write(compile_serve_config([endpoint("a")], CLUSTER).document + "\n")
    service.until(lambda: len(ray.documents) == 2)


def test_a_missing_head_freezes_the_status(service, ray):
    service.running(endpoint("a"))
    before = service.status
    ray.head = Head.MISSING
    ray.outcomes["b"] = runs()
    service.serve(endpoint("b"))
    service.for_cycles(5)
    assert service.status == before
    ray.head = Head.READY
    service.until(lambda: service.states() == {"gateway": "RUNNING", "b": "RUNNING"})


def test_without_a_ready_head_there_are_no_applications(service, ray):
    service.running(endpoint("a"))
    ray.head = Head.NOT_READY
    service.until(lambda: service.states() == {})
    assert service.condition("Ready") == ("False", "ZeroServeEndpoints")
    ray.head = Head.READY
    service.until(lambda: service.condition("Ready")[0] == "True")


def test_services_come_back_only_when_all_applications_run(service, ray):
    ray.outcomes["file:///models/broken"] = fails_to_start("ValueError: no")
    service.running(endpoint("a"))
    service.serve(endpoint("a"), endpoint("b", model={"uri": "file:///models/broken"}))
    service.until(lambda: service.states().get("b") == "DEPLOY_FAILED")
    ray.delete_services()
    service.until(lambda: service.condition("Ready")[0] == "False")
    service.for_cycles(5)
    assert service.condition("Ready")[0] == "False"
    service.running(endpoint("a"))
    service.until(lambda: service.condition("Ready")[0] == "True")


def test_an_upgrade_reports_only_the_pending_cluster(service, ray):
    service.running(endpoint("a"))
    old = service.status["activeServiceStatus"]["rayClusterName"]
    ray.outcomes["a"] = runs(after=10)
    ray.upgrade()
    service.until(lambda: service.states("pending"))
    assert service.states() == {}
    assert service.condition("UpgradeInProgress") == ("True", "BothActivePendingClustersExist")
    service.until(lambda: service.states() == {"gateway": "RUNNING", "a": "RUNNING"})
    assert service.status["activeServiceStatus"]["rayClusterName"] != old
    service.until(lambda: service.condition("UpgradeInProgress") == ("False", "NoPendingCluster"))


def test_an_application_deleted_in_ray_is_not_repaired(service, ray):
    service.running(endpoint("a"))
    ray.delete_application("a")
    service.until(lambda: service.states() == {"gateway": "RUNNING"})
    service.for_cycles(5)
    assert len(ray.documents) == 1


def test_a_restarted_kuberay_puts_the_document_again(service, ray):
    service.running(endpoint("a"))
    ray.restart()
    service.until(lambda: len(ray.documents) == 2)
    assert service.states()["a"] == "RUNNING"


def test_a_kuberay_that_is_down_does_nothing(service, ray):
    service.running()
    ray.down = True
    service.for_cycles(2)
    before = service.status
    service.serve(endpoint("a"))
    service.for_cycles(5)
    assert service.status == before


def test_suspended_it_serves_nothing(service, ray):
    service.running(endpoint("a"))
    ray.suspended = True
    service.until(lambda: service.condition("Suspended") == ("True", "SuspendComplete"))
    assert (service.states(), service.condition("Ready")[0]) == ({}, "False")
    ray.suspended = False
    service.until(lambda: service.states() == {"gateway": "RUNNING", "a": "RUNNING"})


def test_a_deleted_ray_service_goes_away_and_a_new_one_starts_anew(service, ray, http, namespace):
    service.running(endpoint("a"))
    http.delete(service.path).raise_for_status()
    service.until(lambda: http.get(service.path).status_code == 404)
    assert ray.serve == {}


def test_a_removed_application_is_deleting_and_then_gone(service, ray):
    service.running(endpoint("a"))
    service.serve()
    service.until(lambda: service.states().get("a") == "DELETING")
    service.until(lambda: service.states() == {"gateway": "RUNNING"})


OUTCOMES = [
    (fails_to_start("ValueError: no"), "DEPLOY_FAILED", "ValueError: no"),
    (fails_to_build("a", "ImportError: no"), "DEPLOY_FAILED", "ImportError: no"),
    (waits("a", {"GPU": 1.0}, {}), "DEPLOYING", 'required for each replica: {"GPU": 1.0}'),
    (sick(), "UNHEALTHY", "health check"),
]


@pytest.mark.parametrize(("outcome", "status", "words"), OUTCOMES)
def test_an_application_ends_up_as_the_test_says_with_serves_words(service, ray, outcome, status, words):
    ray.outcomes["a"] = outcome
    service.serve(endpoint("a"))

    def reported():
        application = service.applications("pending").get("a", {})
        return application.get("status") == status and words in json.dumps(application).replace('\\"', '"')

    service.until(reported)
