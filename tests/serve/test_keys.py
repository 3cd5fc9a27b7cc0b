"""Two teams with keys of the running command: who may ask, rotation under load, and limits."""

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import yaml
from tritonclient.utils import InferenceServerException

from tests.serve.service import GOOD, MODELS, SAMPLES, running
from tests.serve.test_clients import asked

A, B, LIMITED = "sk-team-a-secret", "sk-team-b-secret", "sk-limited-secret"
NEW = "sk-team-a-new-secret"


def sample(name, **spec):
    manifest = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text())
    for section, fields in spec.items():
        manifest["spec"].setdefault(section, {}).update(fields)
    return manifest


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    path.write_text(yaml.safe_dump({"team-a": A, "team-b": B, "limited": LIMITED}))
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory, keys_file):
    """The sentiment model for team a alone, and vectors for all, up to twelve times a minute."""
    folder = tmp_path_factory.mktemp("with-keys")
    with_key = {"access": {"allow": ["team-a"]}}
    manifests = {
        "sentiment": sample("sentiment", **with_key),
        "minilm": sample("minilm", limits={"perKey": {"requestsPerMinute": 12}}),
    }
    for name, manifest in manifests.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(manifest))
    with running(folder, "--models", str(MODELS), "--keys", str(keys_file)) as service:
        yield service


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def predict(service, key=None, path="/v2/models/sentiment/predict", **body):
    return service.http.post(path, json=GOOD | body, headers=bearer(key) if key else {})


@pytest.mark.parametrize("path", ["/v2/models/sentiment/predict", "/predict"])
def test_who_has_no_key_the_wrong_one_or_another_teams_is_refused(service, path):
    body = {"model": "sentiment"}
    assert predict(service, path=path, **body).status_code == 401
    assert predict(service, "wrong", path, **body).status_code == 401
    assert predict(service, B, path, **body).status_code == 403
    answer = predict(service, A, path, **body)
    assert (answer.status_code, answer.json()["label"]) == (200, "POSITIVE")
    assert len(answer.headers["x-request-id"]) == 36


def test_an_id_of_the_client_comes_back_unless_it_is_none(service):
    def answered(given):
        headers = bearer(A) | {"x-request-id": given}
        return service.http.post("/predict", json=GOOD | {"model": "sentiment"}, headers=headers).headers

    assert answered("id-1")["x-request-id"] == "id-1"
    for given in ("a b", "x" * 129):
        assert len(answered(given)["x-request-id"]) == 36


def test_each_team_sees_its_models(service):
    def seen(key):
        return [each["name"] for each in service.http.get("/v2/models", headers=bearer(key)).json()["models"]]

    assert (seen(A), seen(B)) == (["minilm", "sentiment"], ["minilm"])
    assert service.http.get("/v2/models").status_code == 401
    assert service.http.get("/-/routes").status_code == 404
    assert [service.http.get(path).status_code for path in ("/health", "/ready", "/-/healthz")] == [200] * 3


def test_grpc_has_the_same_keys(service):
    def infer(**headers):
        tensor = triton.InferInput("text", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"I love this"], dtype=object))
        with triton.InferenceServerClient(f"127.0.0.1:{service.grpc_port}") as client:
            return client.infer("sentiment", [tensor], headers=headers).as_numpy("label")[0]

    def refused(**headers):
        with pytest.raises(InferenceServerException) as error:
            infer(**headers)
        return error.value.status()

    assert refused() == refused(**bearer("wrong")) == "StatusCode.UNAUTHENTICATED"
    assert refused(**bearer(B)) == "StatusCode.PERMISSION_DENIED"
    assert infer(**bearer(A)) == b"POSITIVE"


def test_a_key_is_replaced_under_load_and_nothing_fails(service, keys_file):
    """The old key and the new one hold while both are there; no replica is replaced."""
    replicas = service.replica_pids("sentiment")
    current = [A]
    done = threading.Event()
    statuses = []

    def ask():
        while not done.is_set():
            statuses.append(predict(service, current[0]).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        others = {"team-b": B, "limited": LIMITED}
        keys_file.write_text(yaml.safe_dump({"team-a": [A, NEW]} | others))
        service.wait_for("the new key", lambda: predict(service, NEW).status_code == 200, 60)
        assert predict(service, A).status_code == 200
        current[0] = NEW
        keys_file.write_text(yaml.safe_dump({"team-a": NEW} | others))
        service.wait_for("the end of the old key", lambda: predict(service, A).status_code == 401, 60)
    finally:
        done.set()
        asking.join()
    assert set(statuses) == {200}
    assert service.replica_pids("sentiment") == replicas


def test_a_file_that_is_no_file_of_keys_leaves_those_of_before(service, keys_file):
    before = keys_file.read_text()
    keys_file.write_text("team-a: [")
    service.wait_for("the complaint", lambda: "the keys of before go on" in service.output(), 30)
    assert predict(service, NEW).status_code == 200
    keys_file.write_text(before)


def test_the_client_of_openai_waits_for_its_turn_by_itself(service):
    got = asked("clients.txt", "ask_with_key.py", service.url(""), LIMITED, "minilm")
    assert got["vectors"] == 14
    # Twelve come at once, and then one in five seconds.
    assert 5 < got["seconds"] < 60
    assert "not known" in got["refused"]


def logs_of(service):
    """Return the folder of all logs of the service's Ray."""
    [replica] = service.replica_pids("minilm")
    files = [Path(file.path) for file in psutil.Process(replica).open_files()]
    return next(folder for file in files for folder in file.parents if folder.name == "logs")


def test_no_key_is_in_anything_that_was_written(service):
    texts = [path.read_bytes() for path in logs_of(service).rglob("*") if path.is_file()]
    assert len(texts) > 10
    secrets = [secret.encode() for secret in (A, B, NEW, LIMITED)]
    assert [
        secret for secret in secrets if any(secret in text for text in [*texts, service.log.read_bytes()])
    ] == []
