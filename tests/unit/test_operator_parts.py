"""The operator's small parts: what they read, remember and say."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from endpoint_operator.api.profiles import InvalidProfilesError
from endpoint_operator.api.status import parse_status
from endpoint_operator.controller.dashboard import Replicas, count_replicas
from endpoint_operator.controller.debounce import Debouncer
from endpoint_operator.controller.decide.stopwatch import Stopwatch
from endpoint_operator.controller.events import drift_event, status_events
from endpoint_operator.controller.observed.endpoint import parse_observed
from endpoint_operator.controller.observed.rayservice import parse_ray_service
from endpoint_operator.controller.profiles_file import ProfilesFile
from endpoint_operator.controller.settings import Settings, SettingsError
from endpoint_operator.serveconfig.compiler import compile_application
from endpoint_operator.serveconfig.document import own_entry, read_entries, to_document, to_entry
from tests.unit.builders import CLUSTER, endpoint, run, with_value
from tests.unit.small_world import FAILED, World

REQUIRED = {
    "OPERATOR_NAMESPACE": "models",
    "OPERATOR_RAY_SERVICE": "ray",
    "OPERATOR_PROFILES_FILE": "/etc/profiles.yaml",
}
PROFILES = "profiles: [{name: cpu, cpus: 8, memory: 16Gi}]"
ENTRY = to_entry(compile_application(endpoint("a"), CLUSTER))


def test_settings_come_from_the_environment():
    settings = Settings.from_environment(REQUIRED | {"OPERATOR_FAILED_SECONDS": "7.5", "OTHER": "x"})
    assert settings.failed_seconds == 7.5
    assert settings.profiles_file == Path("/etc/profiles.yaml")


def test_an_empty_variable_counts_as_none():
    settings = Settings.from_environment(REQUIRED | {"OPERATOR_HTTP_PORT": ""})
    assert settings.http_port == 8080


def test_bad_settings_are_named_all_at_once_with_what_is_allowed():
    environment = REQUIRED | {"OPERATOR_HTTP_PORT": "99999", "OPERATOR_NAMESPACE": ""}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    assert "OPERATOR_NAMESPACE: is required" in str(caught.value)
    assert "OPERATOR_HTTP_PORT: got '99999'; input should be less than or equal to 65535" in str(caught.value)


def test_a_document_is_read_back_to_the_byte():
    entries = {"a": ENTRY}
    assert read_entries(to_document(entries)) == entries


@pytest.mark.parametrize(
    "text", ["", "applications: []", "{}", "[]", '{"applications": 1}', '{"applications": [{}]}']
)
def test_a_document_of_another_shape_has_no_entries(text):
    assert read_entries(text) == {}


def test_a_document_without_applications_is_never_made():
    with pytest.raises(ValueError, match="without applications"):
        to_document({})


def test_an_entry_of_ours_is_known_to_the_byte():
    assert own_entry(ENTRY, "a") == ENTRY


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("import_path", "os:system"),
        ("route_prefix", "/"),
        ("name", "b"),
        ("args.name", "b"),
        ("args.trust_remote_code", True),
        ("runtime_env", {"pip": ["evil"]}),
        ("deployments", "none"),
    ],
)
def test_an_edited_entry_is_not_ours(path, value):
    assert own_entry(json.dumps(with_value(json.loads(ENTRY), path, value)), "a") is None


def test_what_is_no_entry_is_not_ours():
    assert own_entry("[", "a") is None


def test_a_status_of_another_version_is_read_as_far_as_it_is_understood():
    assert parse_status({"application": "a", "fromTheFuture": 1}).application == "a"
    assert parse_status({"replicas": "many"}) == parse_status(None)


def test_a_fact_is_timed_until_it_breaks_off():
    watch = Stopwatch()
    watch.begin(0)
    assert not watch.held("fact", 10)
    assert watch.seconds_to_next == 10
    watch.begin(6)
    assert not watch.held("fact", 10)
    assert watch.seconds_to_next == 4
    watch.begin(10)
    assert watch.held("fact", 10)
    assert watch.seconds_to_next is None
    watch.begin(11)
    watch.begin(12)
    assert not watch.held("fact", 10)


def test_a_burst_of_rings_counts_once():
    async def burst():
        debouncer = Debouncer(quiet_seconds=0.5, limit_seconds=60)
        debouncer.trigger()
        waiting = asyncio.ensure_future(debouncer.wait(10))
        for _ in range(10):
            await asyncio.sleep(0.005)
            debouncer.trigger()
        assert not waiting.done()
        await waiting
        return await debouncer.wait(0.01)

    assert run(burst()) is False


def test_ringing_that_never_stops_is_answered_in_the_end():
    async def storm():
        debouncer = Debouncer(quiet_seconds=0.1, limit_seconds=0.05)
        waiting = asyncio.ensure_future(debouncer.wait(10))
        while not waiting.done():
            debouncer.trigger()
            await asyncio.sleep(0.001)
        return await waiting

    assert run(storm()) is True


def service(**status):
    metadata = {"uid": "u", "resourceVersion": "1", "generation": 2}
    return parse_ray_service({"metadata": metadata, "spec": {}, "status": status})


def test_a_ray_service_without_a_status_has_not_run():
    assert not service().has_run
    assert service().ready is None


def test_before_there_is_an_active_cluster_kuberay_is_not_called_behind():
    assert not service(observedGeneration=1).is_behind
    assert service(observedGeneration=1).generation_lag == 0
    active = {"rayClusterName": "one"}
    assert service(observedGeneration=1, activeServiceStatus=active).is_behind
    assert service(observedGeneration=0, activeServiceStatus=active).generation_lag == 2


def test_during_an_upgrade_the_pending_cluster_reports():
    upgrading = service(
        activeServiceStatus={"rayClusterName": "one"},
        pendingServiceStatus={"rayClusterName": "two", "applicationStatuses": {"a": FAILED}},
    )
    assert upgrading.is_upgrading
    assert upgrading.applications["a"].status == "DEPLOY_FAILED"


def test_replicas_that_stop_do_not_count():
    states = ["RUNNING", "STARTING", "STOPPING"]
    replicas = [{"state": state} for state in states]
    details = {"applications": {"a": {"deployments": {"Model": {"replicas": replicas}}}}}
    assert count_replicas(details) == {"a": Replicas(total=2, ready=1)}


def test_profiles_are_taken_over_when_their_file_changes(tmp_path):
    path = tmp_path / "profiles.yaml"
    path.write_text(PROFILES)
    file = ProfilesFile(path)
    assert not file.reread()
    path.write_text(PROFILES.replace("cpu,", "other,"))
    assert file.reread()
    assert list(file.profiles.by_name) == ["other"]


def test_an_invalid_file_is_complained_of_once_and_the_valid_profiles_stay(tmp_path, caplog):
    path = tmp_path / "profiles.yaml"
    path.write_text(PROFILES)
    file = ProfilesFile(path)
    path.write_text("profiles: [{name: cpu}]")
    with caplog.at_level(logging.ERROR):
        file.reread()
        file.reread()
    assert file.invalid
    assert [record.message.count("profiles.0.cpus: is required") for record in caplog.records] == [1]
    assert list(file.profiles.by_name) == ["cpu"]
    path.write_text(PROFILES)
    assert not file.reread()
    assert not file.invalid


@pytest.mark.parametrize("text", [None, "", "profiles: []", "a: ["])
def test_without_profiles_there_is_no_start(tmp_path, text):
    path = tmp_path / "profiles.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidProfilesError, match=r"profiles\.yaml"):
        ProfilesFile(path)


def announced(world, name, before):
    after = parse_status(world.status(name))
    return [(event.type, event.reason) for event in status_events(before, after)]


def test_what_is_new_is_announced_and_nothing_else():
    world = World("a")
    before = parse_observed(world.endpoints["a"])
    world.serve()
    assert announced(world, "a", before) == [("Normal", "Accepted")]
    before = parse_observed(world.endpoints["a"])
    world.change("a", resources={"profile": "nowhere"})
    world.look()
    assert announced(world, "a", before) == [("Warning", "Rejected")]
    before = parse_observed(world.endpoints["a"])
    world.look()
    assert announced(world, "a", before) == []


def test_a_rollback_is_announced():
    world = World("a")
    world.serve()
    world.change("a", model={"uri": "file:///models/broken"})
    world.settle(a=FAILED)
    before = parse_observed(world.endpoints["a"])
    world.look(after=1000)
    assert announced(world, "a", before) == [("Warning", "RolledBack")]


def test_an_event_says_what_it_is_about():
    world = World("a")
    event = drift_event(parse_ray_service(world.service), "ray").to_manifest(
        "models", datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    )
    assert event["regarding"] == {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "name": "ray",
        "namespace": "models",
        "uid": "ray",
    }
    assert event["eventTime"] == "2026-01-02T03:04:05.000600Z"
    assert event["reason"] == "DriftCorrected"
