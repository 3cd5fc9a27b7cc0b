"""Two teams and three models: keys on the cluster, rotation under load, limits, and where no key may be."""

import json
import threading
import time

import pytest

from tests.e2e.release import GOOD, endpoint
from tests.serve.test_clients import asked

A, NEW, B = "sk-team-a-secret", "sk-team-a-new-secret", "sk-team-b-secret"
MODELS = {"of-a": ["team-a"], "of-b": ["team-b"], "of-all": []}
# What the page about keys promises, and a little for a busy machine.
TAKEN_OVER_SECONDS = 60


def write_keys(release, **keys):
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{release.name}-keys"},
        "stringData": {name.replace("_", "-"): value for name, value in keys.items()},
    }
    release.kubectl("apply", "--filename=-", manifest=json.dumps(manifest))


def ask(release, model, key=None, path=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    path = path or f"/v2/models/{model}/predict"
    return release.http.post(path, json=GOOD | {"model": model}, headers=headers)


def status(release, model, key=None):
    return ask(release, model, key).status_code


def replicas(release):
    """Return the ids of all replicas, which are new when one restarts."""
    return {
        replica["replica_id"]
        for application in release.applications().values()
        for deployment in application["deployments"].values()
        for replica in deployment["replicas"]
    }


@pytest.fixture(scope="module")
def teams(release):
    """The release asks for keys; afterwards it asks for none again."""
    limits = {"perKey": {"requestsPerMinute": 30}}
    for name, allow in MODELS.items():
        more = {"limits": limits} if name == "of-all" else {}
        release.apply(endpoint(name, access={"allow": allow}, **more))
    release.wait_ready(*MODELS)
    cluster, before = release.cluster(), replicas(release)
    # Although the Secret was not there when the pods started.
    write_keys(release, team_a=A, team_b=B)
    release.install("--set=access.keys=required")
    release.wait_for("keys are required", lambda: status(release, "of-a") == 401, 90)
    release.wait_for("the keys are known", lambda: status(release, "of-a", A) == 200, 90)
    assert (release.cluster(), replicas(release)) == (cluster, before)
    yield
    release.install()
    release.wait_for("no key is required", lambda: status(release, "of-all") == 200, 90)
    for name in MODELS:
        release.delete(name)
        release.wait_for("it is gone", lambda name=name: f'"{name}"' not in release.serve_config())
    release.kubectl("delete", "secret", f"{release.name}-keys")


def test_each_team_asks_its_models_and_sees_no_other(release, teams):
    expected = {
        "of-a": {None: 401, "wrong": 401, A: 200, B: 403},
        "of-b": {None: 401, "wrong": 401, A: 403, B: 200},
    }
    for model, statuses in expected.items():
        for path in (None, "/predict"):
            assert {key: ask(release, model, key, path).status_code for key in statuses} == statuses
    for key, other in ((A, "of-b"), (B, "of-a")):
        headers = {"x-api-key": key}
        names = {each["name"] for each in release.http.get("/v2/models", headers=headers).json()["models"]}
        assert names >= MODELS.keys() - {other}
        assert other not in names
    assert release.http.get("/v1/models").status_code == 401
    assert [release.http.get(path).status_code for path in ("/health", "/ready")] == [200, 200]


def test_a_key_is_replaced_under_load(release, teams, note):
    """No request fails and no replica restarts; the old key and the new one hold while both are there."""
    before = replicas(release)
    current, statuses, done = [A], [], threading.Event()

    def send():
        while not done.wait(0.05):
            statuses.append(status(release, "of-a", current[0]))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        started = time.monotonic()
        write_keys(release, team_a=f"{A}\n{NEW}", team_b=B)
        release.wait_for("the new key", lambda: status(release, "of-a", NEW) == 200, TAKEN_OVER_SECONDS)
        note("seconds until a new key was taken over", f"{time.monotonic() - started:.1f}")
        assert status(release, "of-a", A) == 200
        current[0] = NEW
        started = time.monotonic()
        write_keys(release, team_a=NEW, team_b=B)
        release.wait_for(
            "the end of the old key", lambda: status(release, "of-a", A) == 401, TAKEN_OVER_SECONDS
        )
        note("seconds until a key was refused that is gone", f"{time.monotonic() - started:.1f}")
    finally:
        done.set()
        sender.join()
    note("requests meanwhile", len(statuses))
    assert set(statuses) == {200}
    assert replicas(release) == before


def test_limits_are_told_and_hold_for_each_key(release, teams):
    answers = [ask(release, "of-all", B) for _ in range(45)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 1 <= len(refused) <= 15
    assert all(1 <= int(answer.headers["retry-after"]) <= 2 for answer in refused)
    assert refused[0].headers["x-ratelimit-limit-requests"] == "30"
    assert status(release, "of-all", NEW) == 200


def test_the_client_of_openai_waits_for_its_turn_by_itself(release, teams):
    limits = {"perKey": {"requestsPerMinute": 12}}
    model = {"uri": "file:///models/minilm", "task": "feature-extraction"}
    release.apply(endpoint("limited", model=model, limits=limits))
    release.wait_ready("limited")
    got = asked("clients.txt", "ask_with_key.py", str(release.http.base_url), NEW, "limited")
    assert got["vectors"] == 14
    # Twelve come at once, and then one in five seconds.
    assert 5 < got["seconds"] < 60
    release.delete("limited")


def is_traced(release, model):
    """Whether a worker has printed the span of a request to the model; one in five is."""
    ask(release, model, NEW)
    logs = (release.kubectl("logs", pod["metadata"]["name"]) for pod in release.pods(node_type="worker"))
    return any(f'"gen_ai.request.model": "{model}"' in log for log in logs)


def test_no_key_is_written_anywhere(release, teams):
    """In no log, trace, event, status or object but the Secret."""
    release.wait_for("a request with a key is traced", lambda: is_traced(release, "of-a"), 90)
    texts = [
        release.kubectl("get", "events,modelendpoints,rayservices,configmaps", "--output=yaml"),
        *(
            release.kubectl("logs", pod["metadata"]["name"], "--all-containers", "--tail=-1")
            for pod in release.get("pods")["items"]
        ),
    ]
    assert sum(map(len, texts)) > 10_000
    assert [key for key in (A, NEW, B) if any(key in text for text in texts)] == []
