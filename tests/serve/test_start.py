"""How `modelendpoint run` begins and ends: what it refuses, what it joins, what it leaves behind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time

import httpx
import psutil
import pytest
import yaml

from endpoint_operator.api.types import parse_endpoint
from endpoint_operator.controller.observed.ray_view import is_deployed
from endpoint_operator.controller.observed.rayservice import Replicas
from endpoint_operator.controller.observed.serve_details import parse_serve_details
from endpoint_operator.local.ports import free_port
from endpoint_operator.local.ray import detect_machine, started_ray
from endpoint_operator.serveconfig.compiler import compile_entry
from serve_app.contract import Task
from tests.load import load_on
from tests.serve import tiny_models
from tests.serve.service import GOOD, MODELS, START_SECONDS, command, manifest, running


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.write(Task.TEXT_CLASSIFICATION, tmp_path_factory.mktemp("tiny") / "good")


def run(folder, *manifests, options=()):
    (folder / "endpoints.yaml").write_text(yaml.safe_dump_all(manifests))
    return subprocess.run(
        command("run", str(folder), "--port", str(free_port()), *options),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    return sentence


def test_a_port_in_use_is_named(tmp_path, model):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        good = manifest("good", f"file://{model}", "text-classification")
        sentence = one_sentence(run(tmp_path, good, options=("--port", str(port))))
    assert sentence.startswith(f"port {port} cannot be used")
    assert "--port" in sentence


def test_an_endpoint_that_is_too_big_for_the_machine_is_refused_at_once(tmp_path, model):
    big = manifest("big", f"file://{model}", "text-classification", resources={"memory": "9Ti"})
    sentence = one_sentence(run(tmp_path, big))
    assert re.search(r"big: resources\.memory: asks for 9Ti, and this machine has [\d.]+Gi free", sentence)


def test_endpoints_that_are_too_big_together_are_refused_at_once(tmp_path, model):
    most = {"memory": f"{detect_machine().memory_bytes * 7 // 10 // 2**20}Mi"}
    both = [
        manifest(f"big-{number}", f"file://{model}", "text-classification", resources=most)
        for number in range(2)
    ]
    sentence = one_sentence(run(tmp_path, *both))
    assert re.search(r"ask for [\d.]+Gi of memory and this machine has [\d.]+Gi free; serve fewer", sentence)


def test_a_missing_model_ends_the_command_with_its_cause(tmp_path):
    done = run(tmp_path, manifest("lost", f"file://{tmp_path}/nowhere", "fill-mask"))
    assert f"lost: file://{tmp_path}/nowhere: there is no folder" in one_sentence(done)


def test_no_files_are_no_endpoints(tmp_path):
    assert "there is no endpoint to serve" in one_sentence(run(tmp_path))


@pytest.fixture(scope="module")
def second(service, model, tmp_path_factory):
    """Another service on this machine, with an endpoint that is served and one that rests."""
    folder = tmp_path_factory.mktemp("second")
    good = manifest("good", f"file://{model}", "text-classification")
    suspended = manifest("resting", f"file://{model}", "text-classification", suspend=True)
    (folder / "endpoints.yaml").write_text(yaml.safe_dump_all([good, suspended]))
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            # What a person who works with another Ray may have set.
            patch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
            second = stack.enter_context(running(folder))
        yield second


def test_two_services_share_a_machine(service, second):
    assert set(second.models()) == {"good"}
    assert "good" not in service.models()
    for each, name in ((service, "sentiment"), (second, "good")):
        assert each.http.post(f"/v2/models/{name}/predict", json={"text": "good"}).status_code == 200


def test_a_killed_command_leaves_no_process_and_no_other_service_notices(service, second):
    assert "Suspended" in second.output()
    ours = psutil.Process(second.process.pid).children(recursive=True)
    os.kill(second.process.pid, signal.SIGKILL)
    second.process.wait(10)
    _, alive = psutil.wait_procs(ours, timeout=60)
    assert alive == []
    assert service.http.post("/v2/models/sentiment/predict", json=GOOD).status_code == 200


def test_a_running_ray_is_joined_and_left_as_it_was(tmp_path, model, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    port = free_port()
    with started_ray(detect_machine(), "127.0.0.1", port) as ray:
        monkeypatch.setenv("RAY_AUTH_TOKEN", ray.token)
        folder = tmp_path / "manifests"
        folder.mkdir()
        good = manifest("good", f"file://{model}", "text-classification")
        (folder / "endpoints.yaml").write_text(yaml.safe_dump(good))
        with running(folder, "--ray-dashboard", ray.url) as service:
            assert f"localhost:{port}/v2/models/good" in service.output()
            response = httpx.post(f"http://127.0.0.1:{port}/v2/models/good/predict", json={"text": "good"})
            assert response.status_code == 200
            assert_ray_says_what_it_was_given(ray.details(), good)
            refused = run(
                tmp_path,
                manifest("good", f"file://{model}", "text-classification"),
                options=("--ray-dashboard", ray.url),
            )
            assert "already serves gateway, good" in one_sentence(refused)
            assert service.stop() == 0
        assert ray.details()["applications"] == {}


def assert_ray_says_what_it_was_given(details, document):
    """The operator tells from this of which version a report speaks."""
    report = parse_serve_details(details)["good"]
    assert (report.status, report.replicas) == ("RUNNING", Replicas(total=1, ready=1))
    assert is_deployed(report, compile_entry(parse_endpoint(document), detect_machine()))
    document["spec"]["limits"] = {"maxQueuedRequests": 7}
    assert not is_deployed(report, compile_entry(parse_endpoint(document), detect_machine()))


def test_ctrl_c_finishes_requests_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "manifests"
    folder.mkdir()
    encoder = manifest("encoder", "file:///models/minilm", "feature-extraction")
    (folder / "endpoints.yaml").write_text(yaml.safe_dump(encoder))
    slow = {"texts": ["word " * 250] * 100}
    with running(folder, "--models", str(MODELS)) as service:
        ours = psutil.Process(service.process.pid).children(recursive=True)
        with load_on(service.url("/v2/models/encoder/predict"), slow, clients=1) as load:
            time.sleep(1)
            os.killpg(service.process.pid, signal.SIGINT)
            service.wait_for("the answer to the running request", lambda: load.statuses[200])
        assert service.process.wait(90) == 0
        assert service.output().rstrip().endswith("Stopped.")
        _, alive = psutil.wait_procs(ours, timeout=10)
        assert alive == []
