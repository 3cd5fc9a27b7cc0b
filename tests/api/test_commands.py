"""`modelendpoint plan` and `status`, as a person calls them, against a real API server."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.harness.documents import document, ray_service
from tests.harness.operator_process import PROFILES


@pytest.fixture
def served(scene, http, tmp_path):
    """Two endpoints that an operator serves, and the profiles as the chart stores them."""
    data = {"profiles.yaml": yaml.safe_dump(PROFILES)}
    path = f"/api/v1/namespaces/{scene.namespace}/configmaps"
    http.post(path, json={"metadata": {"name": "ray-profiles"}, "data": data}).raise_for_status()
    scene.begin("a", "b")
    return scene


@pytest.fixture
def modelendpoint(api_server, namespace):
    """Return a function that runs the command as a process: exit code, output, complaints."""

    def run(*arguments):
        process = subprocess.run(
            [sys.executable, "-m", "endpoint_operator.cli.main", *map(str, arguments), "-n", namespace],
            env=os.environ | {"KUBECONFIG": str(api_server.kubeconfig), "PYTHONPATH": "operator:."},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return process.returncode, process.stdout, process.stderr

    return run


def write(path, *documents):
    path.write_text(yaml.safe_dump_all(documents))
    return path


def test_what_is_served_is_planned_as_unchanged(served, modelendpoint, tmp_path):
    file = write(tmp_path / "all.yaml", document("a"), document("b"))
    code, output, complaint = modelendpoint("plan", file, "--exit-code", "-o", "json")
    assert (code, complaint) == (0, "")
    assert {plan["name"]: plan["plan"] for plan in json.loads(output)["endpoints"]} == {
        "a": "unchanged",
        "b": "unchanged",
    }


def test_changes_are_planned_against_what_is_served(served, modelendpoint, tmp_path):
    live = document("a", batching={"maxBatchSize": 8})
    restart = document("b", model={"dtype": "float16"})
    file = write(tmp_path / "all.yaml", live, restart, document("c"))
    code, output, complaint = modelendpoint("plan", file, "--exit-code")
    assert (code, complaint) == (2, "")
    assert output.splitlines()[1:] == [
        "a      live      batching.maxBatchSize: 16 → 8, taken over in place",
        "b      restart   model.dtype: auto → float16, replicas are replaced, without a gap",
        "c      new       it is not served yet",
    ]


def test_the_profiles_of_the_cluster_decide_what_fits(served, modelendpoint, tmp_path):
    file = write(tmp_path / "a.yaml", document("a", resources={"profile": "tpu"}))
    code, output, _ = modelendpoint("plan", file)
    assert code == 1
    assert "no profile is named 'tpu'" in output


def test_the_sources_of_the_cluster_decide_what_is_allowed(served, http, modelendpoint, tmp_path):
    data = {"profiles.yaml": yaml.safe_dump({**PROFILES, "sources": {"allow": ["hf://org"]}})}
    path = f"/api/v1/namespaces/{served.namespace}/configmaps/ray-profiles"
    patch = {"content-type": "application/merge-patch+json"}
    http.patch(path, content=json.dumps({"data": data}), headers=patch).raise_for_status()
    file = write(tmp_path / "a.yaml", document("a"))
    code, output, _ = modelendpoint("plan", file)
    assert code == 1
    assert "is no allowed source; sources.allow of the chart has hf://org; what is served goes" in output


def test_without_a_ray_service_a_plan_says_so(crd, ray_services, modelendpoint, namespace, tmp_path):
    file = write(tmp_path / "a.yaml", document("a"))
    code, _, complaint = modelendpoint("plan", file)
    assert code == 1
    assert complaint.startswith(f"namespace {namespace!r} must have one RayService")


@pytest.fixture
def two_runtimes(http, crd, ray_services, namespace):
    """Two RayServices, of which `big` is the default, and an endpoint for each; nothing is served."""
    label = {"serving.modelendpoint.dev/default-runtime": "true"}
    for name, labels in (("big", label), ("small", {})):
        service = ray_service(name)
        service["metadata"]["labels"] = labels
        http.post(f"/apis/ray.io/v1/namespaces/{namespace}/rayservices", json=service).raise_for_status()
    path = f"/apis/serving.modelendpoint.dev/v1alpha1/namespaces/{namespace}/modelendpoints"
    for sent in (document("a"), document("b", runtime="small")):
        http.post(path, json=sent).raise_for_status()


@pytest.mark.parametrize(
    ("options", "plans"),
    [
        ((), {"a": "new", "b": "unchanged"}),
        (("--ray-service", "small"), {"a": "unchanged", "b": "new"}),
    ],
)
def test_a_plan_is_for_the_endpoints_of_one_runtime(two_runtimes, modelendpoint, tmp_path, options, plans):
    file = write(tmp_path / "all.yaml", document("a"), document("b", runtime="small"))
    profiles = write(tmp_path / "profiles.yaml", PROFILES)
    code, output, complaint = modelendpoint("plan", file, "--profiles", profiles, "-o", "json", *options)
    assert (code, complaint) == (0, "")
    assert {plan["name"]: plan["plan"] for plan in json.loads(output)["endpoints"]} == plans


@pytest.mark.parametrize(
    ("options", "names"),
    [((), ["a", "b"]), (("--ray-service", "big"), ["a"]), (("--ray-service", "small"), ["b"])],
)
def test_status_shows_all_endpoints_or_those_of_one_runtime(two_runtimes, modelendpoint, options, names):
    code, output, complaint = modelendpoint("status", *options)
    assert (code, complaint) == (0, "")
    assert [line.split()[0] for line in output.splitlines()[1:]] == names


def test_status_of_a_ray_service_that_is_not_there_is_an_error(two_runtimes, modelendpoint, namespace):
    code, _, complaint = modelendpoint("status", "--ray-service", "tiny")
    assert code == 1
    assert complaint == f"namespace {namespace!r} has no RayService 'tiny'; there is big, small\n"


def test_a_ray_service_without_profiles_is_said(ray, crd, modelendpoint, namespace, tmp_path):
    file = write(tmp_path / "a.yaml", document("a"))
    code, _, complaint = modelendpoint("plan", file)
    assert (code, complaint) == (
        1,
        f"cannot read the ConfigMap 'ray-profiles' of namespace '{namespace}': "
        '404: configmaps "ray-profiles" not found\n',
    )


def test_status_shows_what_kubectl_shows(served, modelendpoint):
    code, output, complaint = modelendpoint("status")
    assert (code, complaint) == (0, "")
    rows = {line.split()[0]: line.split()[1:5] for line in output.splitlines()[1:]}
    assert rows == {name: ["True", "Serving", "text-classification", "cpu"] for name in ("a", "b")}


def test_status_of_one_that_is_not_there_is_an_error(served, modelendpoint):
    code, output, complaint = modelendpoint("status", "a", "nope", "-o", "json")
    assert code == 1
    assert [row["name"] for row in json.loads(output)["endpoints"]] == ["a"]
    assert complaint == f"namespace '{served.namespace}' has no ModelEndpoint 'nope'\n"


def test_without_the_custom_resource_definition_status_says_so(other_scene, tmp_path):
    scene, kubectl = other_scene
    kubectl("delete", "crd", "modelendpoints.serving.modelendpoint.dev")
    process = subprocess.run(
        [sys.executable, "-m", "endpoint_operator.cli.main", "status"],
        env=os.environ | {"KUBECONFIG": str(kubectl.server.kubeconfig), "PYTHONPATH": "operator:."},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 1
    assert "its custom resource definition is not installed" in process.stderr
    assert len(process.stderr.splitlines()) == 1
