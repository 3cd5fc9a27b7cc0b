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
from serve_app.contract import ACCESS_VARIABLE, Task
from serve_app.gateway.public_reason import NOT_LOADED
from tests.load import load_on
from tests.serve import tiny_models
from tests.serve.bad_requests import assert_error
from tests.serve.service import GOOD, MODELS, START_SECONDS, command, free_ports, manifest, running


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.write(Task.TEXT_CLASSIFICATION, tmp_path_factory.mktemp("tiny") / "good")


def run(folder, *manifests, options=()):
    (folder / "endpoints.yaml").write_text(yaml.safe_dump_all(manifests))
    return subprocess.run(
        command("run", str(folder), *free_ports(), *options),
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


def test_more_replicas_than_there_are_places_are_refused_at_once(tmp_path, model):
    many = [
        manifest(f"many-{number}", f"file://{model}", "text-classification", resources={"memory": "1Mi"})
        for number in range(detect_machine().cpus * 16 + 1)
    ]
    assert "replicas with" in one_sentence(run(tmp_path, *many))


def test_a_full_folder_for_temporary_files_is_named(tmp_path, model):
    mounted = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets us mount nothing")
    full = tmp_path / "full"
    full.mkdir()
    good = manifest("good", f"file://{model}", "text-classification")
    (tmp_path / "endpoints.yaml").write_text(yaml.safe_dump(good))
    mount = f'mount -t tmpfs -o size=200k none {full} && exec "$@"'
    done = subprocess.run(
        [*mounted, "sh", "-c", mount, "sh", *command("run", str(tmp_path), *free_ports())],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        env=os.environ | {"RAY_TMPDIR": str(full)},
    )
    assert re.search(rf"{full} has 0\.\dMi free and Ray needs", one_sentence(done))


def test_the_first_ctrl_c_ends_a_start_at_once(tmp_path, model):
    good = manifest("good", f"file://{model}", "text-classification")
    (tmp_path / "endpoints.yaml").write_text(yaml.safe_dump(good))
    with subprocess.Popen(
        command("run", str(tmp_path), *free_ports()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout.readline().startswith("Starting Ray")
        started = psutil.Process(process.pid)
        # The start is under way as soon as Ray's own processes come.
        while len(started.children(recursive=True)) < 2:
            time.sleep(0.05)
        ours = started.children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout.read().strip() == "Stopped at once."
    _, alive = psutil.wait_procs(ours, timeout=10)
    assert alive == []


def test_no_files_are_no_endpoints(tmp_path):
    assert "there is no endpoint to serve" in one_sentence(run(tmp_path))


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    """A folder with a link to a folder that a replica can read."""
    folder = tmp_path_factory.mktemp("linked")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "config.json").write_text("{}")
    (folder / "out").symlink_to(elsewhere)
    return folder


@pytest.fixture(scope="module")
def second(service, model, linked, tmp_path_factory):
    """Another service on this machine, with an endpoint that is served and one that rests.

    Its models may come from the folder of one, from one that is not there, and from one with a link.
    """
    folder = tmp_path_factory.mktemp("second")
    rules = f"file://{model}\nfile:///nowhere\nfile://{linked}\n"
    access = tmp_path_factory.mktemp("access")
    (access / "access").mkdir()
    (access / "access" / "access.json").write_text("{}")
    (access / "access" / "sources").write_text(rules)
    good = manifest("good", f"file://{model}", "text-classification")
    suspended = manifest("resting", f"file://{model}", "text-classification", suspend=True)
    (folder / "endpoints.yaml").write_text(yaml.safe_dump_all([good, suspended]))
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(ACCESS_VARIABLE, str(access))
            # What a person who works with another Ray may have set, or one behind a proxy.
            patch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "grpc_proxy"):
                patch.setenv(name, "http://127.0.0.1:9")
            patch.delenv("no_proxy", raising=False)
            # Nobody can write there, not even root.
            patch.setenv("HOME", "/proc/self/nobody")
            # As on systems for which Ray has no HAProxy.
            patch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
            second = stack.enter_context(running(folder))
        yield second


def test_two_services_share_a_machine(service, second):
    assert set(second.models()) == {"good"}
    assert "good" not in service.models()
    for each, name in ((service, "sentiment"), (second, "good")):
        assert each.http.post(f"/v2/models/{name}/predict", json={"text": "good"}).status_code == 200


def test_without_haproxy_the_gateway_answers_for_the_models(second):
    assert second.http.get("/v2/models/good").json()["parameters"]["cold_start"]
    assert second.http.get("/v2/models/good/ready").json() == {"name": "good", "ready": True}
    assert second.http.post("/predict", json={"model": "good", "text": "good"}).status_code == 200
    assert_error(second.http.get("/v2/models/other/ready"), 404)
    second.write("lost.yaml", manifest("lost", "file:///nowhere", "fill-mask"))
    second.wait_for(
        "its failure", lambda: "lost: Failed: file:///nowhere: there is no folder" in second.output()
    )
    for response in (
        second.http.get("/v2/models/lost/ready", timeout=8),
        second.http.post("/v2/models/lost/predict", json=GOOD, timeout=8),
        second.http.post("/predict", json={"model": "lost", **GOOD}, timeout=8),
    ):
        assert_error(response, 503)
        assert NOT_LOADED in response.json()["error"]


def test_a_link_out_of_the_allowed_sources_is_refused_and_clients_read_no_path(second, linked):
    second.write("linked.yaml", manifest("linked", f"file://{linked}/out", "fill-mask"))
    elsewhere = (linked / "out").resolve()
    refusal = f"linked: Failed: file://{linked}/out: a link leads to {elsewhere}, where sources.allow"
    second.wait_for("its failure", lambda: refusal in second.output())
    response = second.http.post("/v2/models/linked/predict", json=GOOD, timeout=8)
    assert_error(response, 503)
    assert response.json()["error"] == f"linked is DEPLOY_FAILED: {NOT_LOADED}"
    assert second.models()["linked"]["reason"] == NOT_LOADED
    assert str(linked) not in second.http.get("/v2/models").text


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
    with started_ray(detect_machine(), "127.0.0.1", port, free_port()) as ray:
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


def test_ctrl_c_finishes_requests_and_leaves_nothing_behind(tmp_path, second):
    """It runs where the command above was killed: on the same port, with what that left."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    # A slow machine may take longer than the usual 20 seconds.
    patient = {"gracefulShutdownSeconds": 80}
    encoder = manifest("encoder", "file:///models/minilm", "feature-extraction", health=patient)
    (folder / "endpoints.yaml").write_text(yaml.safe_dump(encoder))
    slow = {"texts": ["word " * 250] * 100}
    with running(folder, "--models", str(MODELS), port=second.port) as service:
        ours = psutil.Process(service.process.pid).children(recursive=True)
        url = service.url("/v2/models/encoder/predict")
        # From here on whoever gets the slow request knows the replica, and hands it on at once.
        assert httpx.post(url, json={"text": "short"}, timeout=60).status_code == 200
        with load_on(url, slow, clients=1) as load:
            time.sleep(1)
            os.killpg(service.process.pid, signal.SIGINT)
            service.wait_for("the answer to the running request", lambda: load.statuses or load.failures)
            assert load.statuses[200], load.failures
        assert service.process.wait(120) == 0
        assert service.output().rstrip().endswith("Stopped.")
        _, alive = psutil.wait_procs(ours, timeout=10)
        assert alive == []
