"""`GET /v2/usage`: the sum over replicas, from when on it is complete, and who gets it."""

import pytest
from starlette.testclient import TestClient

from serve_app.contract import OPEN_USAGE_VARIABLE, UsageMinute, UsageReport
from serve_app.gateway.model_index import ModelIndex
from serve_app.gateway.usage import _authorization, read_report, usage_route
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.app import application
from serve_app.http.shapes import error_reply
from serve_app.replica.usage_store import HISTORY_SECONDS, ReplicaUsage, to_value, usage_key
from tests.unit.test_access_front import access_folder, key
from tests.unit.test_model_index import FakeServe
from tests.unit.test_model_index import application as application_of_serve

# A whole minute.
NOW = 1_700_000_040
TOKEN = "Bearer secret"


class Store:
    """The values in a dictionary."""

    def __init__(self):
        self.values = {}

    def write(self, application, replica, ago, *minutes, ending=False):
        """Let a replica write, so many seconds before NOW; minutes are (minutes before NOW, amounts)."""
        usage = ReplicaUsage(
            written=NOW - ago,
            minutes=[UsageMinute(begin=NOW - 60 * before, **amounts) for before, amounts in minutes],
            ending=ending,
        )
        self.values[usage_key(application, replica)] = to_value(usage)

    def items(self):
        return dict(self.values)

    def remove(self, key):
        del self.values[key]


@pytest.fixture
def store():
    return Store()


def until(store, name="a"):
    """Return how many seconds before NOW the usage of a model is complete."""
    return NOW - read_report(store, NOW).models[name].until


def test_minutes_are_summed_over_the_replicas_of_a_model(store):
    store.write("a", "1", 0, (2, {"requests": 1, "compute_seconds": 1.5}), (1, {"replica_seconds": 60.0}))
    store.write("a", "2", 0, (1, {"replica_seconds": 30.0, "input_tokens": 4, "output_tokens": 5}))
    store.write("b", "3", 0, (1, {"requests": 7}))
    report = read_report(store, NOW)
    assert report.now == NOW
    assert report.models["a"].minutes == [
        UsageMinute(begin=NOW - 120, requests=1, compute_seconds=1.5),
        UsageMinute(begin=NOW - 60, replica_seconds=90.0, input_tokens=4, output_tokens=5),
    ]
    assert report.models["b"].minutes == [UsageMinute(begin=NOW - 60, requests=7)]


def test_the_slowest_replica_says_what_is_complete(store):
    store.write("a", "1", 31)
    store.write("a", "2", 130)
    store.write("b", "3", 31)
    assert (until(store), until(store, "b")) == (180, 60)


def test_a_replica_that_may_have_begun_is_waited_for(store):
    store.write("a", "1", -100)
    assert until(store) == 60


def test_a_replica_that_was_asked_to_stop_is_waited_for_as_long_as_it_writes(store):
    store.write("a", "1", 29, ending=True)
    store.write("b", "1", 61, ending=True)
    store.write("b", "2", 0)
    assert (until(store), until(store, "b")) == (60, 60)
    store.write("b", "1", 61)
    assert until(store, "b") == 120


def test_a_replica_that_was_killed_is_not_waited_for_for_ever(store):
    store.write("a", "1", 899)
    assert until(store) == 900
    store.write("a", "1", 901)
    assert until(store) == 60


def test_what_is_too_old_is_removed(store):
    store.write("a", "1", HISTORY_SECONDS + 1, (200, {"requests": 1}))
    store.write("a", "2", HISTORY_SECONDS - 1, (1, {"requests": 2}))
    assert [each.requests for each in read_report(store, NOW).models["a"].minutes] == [2]
    assert list(store.values) == ["a/2"]


def test_what_another_version_wrote_is_left_alone(store):
    store.values["a/1"] = b"[1]"
    store.write("b", "2", 0)
    assert list(read_report(store, NOW).models) == ["b"]
    assert len(store.values) == 2


def client(store, expected=TOKEN, visible=None):
    route = usage_route(lambda: NOW, visible, store=store, authorization=lambda: expected)
    return TestClient(application([route], error_reply))


def test_whoever_has_the_token_is_answered(store):
    store.write("a", "1", 0, (1, {"requests": 1}))
    answer = client(store).get("/v2/usage", headers={"Authorization": TOKEN})
    assert answer.status_code == 200
    assert UsageReport.model_validate_json(answer.content) == read_report(store, NOW)
    # A minute has what is not zero.
    assert answer.json()["models"]["a"]["minutes"] == [{"begin": NOW - 60, "requests": 1}]


@pytest.mark.parametrize("given", [None, "", "secret", "Bearer x", "Bearer secret2", "Bearer secr\u00e9t"])
def test_others_are_answered_as_if_nothing_were_there(store, given):
    headers = {} if given is None else {"Authorization": given.encode()}
    answers = [client(store).get(path, headers=headers) for path in ("/v2/usage", "/v2/other")]
    assert [answer.status_code for answer in answers] == [404, 404]
    here, other = (answer.json() for answer in answers)
    assert here == other | {"error": other["error"].replace("other", "usage")}


@pytest.mark.parametrize("given", ["", "Bearer "])
def test_without_a_token_of_ray_nobody_is_answered(store, given):
    assert client(store, "").get("/v2/usage", headers={"Authorization": given}).status_code == 404


def test_a_ray_without_tokens_has_none(monkeypatch):
    monkeypatch.setattr("serve_app.gateway.usage.is_token_auth_enabled", lambda: False)
    assert _authorization() == ""


@pytest.fixture
def local(store, tmp_path, monkeypatch):
    """A service without a cluster, with keys; of its models, `own` is that of key a."""
    monkeypatch.setenv(OPEN_USAGE_VARIABLE, "1")
    for name in ("own", "shared", "removed"):
        store.write(name, "1", 0, (1, {"requests": 1}))
    index = ModelIndex(FakeServe(own=application_of_serve(allow=["a"]), shared=application_of_serve()))
    return client(store, visible=VisibleModels(index, access_folder(tmp_path)))


@pytest.mark.parametrize(("name", "told"), [("a", ["own", "shared"]), ("b", ["shared"])])
def test_a_service_without_a_cluster_tells_clients_of_the_models_that_they_may_ask(local, name, told):
    report = UsageReport.model_validate_json(local.get("/v2/usage", headers=key(name)).content)
    assert list(report.models) == told
    assert report.models["shared"].minutes == [UsageMinute(begin=NOW - 60, requests=1)]


def test_it_tells_nobody_without_a_key_where_keys_are_required(local):
    assert local.get("/v2/usage").status_code == 401


def test_whoever_has_the_token_of_ray_is_told_of_all_models_there_too(local):
    report = UsageReport.model_validate_json(local.get("/v2/usage", headers={"Authorization": TOKEN}).content)
    assert list(report.models) == ["own", "removed", "shared"]


def test_on_a_cluster_no_key_opens_it(local, monkeypatch):
    monkeypatch.delenv(OPEN_USAGE_VARIABLE)
    assert local.get("/v2/usage", headers=key("a")).status_code == 404
