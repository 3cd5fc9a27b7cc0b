"""`modelendpoint status`: its lines, and what it says when there is nothing to ask."""

import sys

import pytest
import yaml

from endpoint_operator.cli import cluster
from endpoint_operator.cli.status import HEADER, endpoint_rows
from endpoint_operator.kube.errors import KubeError
from tests.harness.builders import manifest, manifest_text
from tests.unit.test_cli import modelendpoint

UNREACHABLE = "https://127.0.0.1:9"


def stored(name="a", ready="True", reason="Serving", message="The model answers.", generation=1, **status):
    """Return a ModelEndpoint as an API server lists it, its status written for generation 1."""
    told = {"reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    conditions = [{"type": "Reconciling", "status": "False", **told}]
    if ready is not None:
        conditions.append({"type": "Ready", "status": ready, **told})
    endpoint = manifest(name, resources={"profile": "cpu"})
    endpoint["metadata"]["generation"] = generation
    endpoint["status"] = {
        "observedGeneration": 1,
        "conditions": conditions,
        **status,
    }
    return endpoint


def cells(endpoint):
    [row] = endpoint_rows([endpoint])
    return dict(zip(HEADER, row.cells, strict=True))


def test_a_suspended_endpoint_has_a_reason_and_is_neither_ready_nor_not():
    told = cells(stored(ready=None, reason="Suspended"))
    assert (told["READY"], told["REASON"], told["ERROR"]) == ("-", "Suspended", "")


def test_a_line_tells_what_the_status_says():
    assert cells(stored(replicas=2, readyReplicas=1)) == {
        "NAME": "a",
        "READY": "True",
        "REASON": "Serving",
        "TASK": "text-classification",
        "PROFILE": "cpu",
        "REPLICAS": "1/2",
        "ERROR": "",
    }


def test_an_error_is_one_line():
    assert cells(stored(ready="False", reason="RolledBack", lastError="no\n  model"))["ERROR"] == "no model"


def test_without_an_error_the_cause_of_not_being_ready_is_told():
    assert cells(stored(ready="False", reason="Deploying", message="Ray loads."))["ERROR"] == "Ray loads."


@pytest.mark.parametrize("endpoint", [stored(generation=2), manifest("a")])
def test_what_the_operator_has_not_seen_is_not_called_ready(endpoint):
    found = cells(endpoint)
    assert (found["READY"], found["REASON"]) == ("Unknown", "-")
    assert found["ERROR"] == "the operator has not seen this version yet"


def test_lines_are_sorted_by_name():
    assert [row.name for row in endpoint_rows([stored("b"), stored("a")])] == ["a", "b"]


def test_a_program_gets_the_runtime_too():
    [row] = endpoint_rows([manifest("a", runtime="small")])
    assert row.to_json()["runtime"] == "small"


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """A kubeconfig whose cluster nobody answers for."""
    path = tmp_path / "config"
    context = {"cluster": "c", "user": "u", "namespace": "models"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": UNREACHABLE}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": context}],
    }
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@pytest.fixture(params=["status", "usage", "plan"])
def command(request, tmp_path):
    """Arguments of each command that asks a cluster."""
    (tmp_path / "a.yaml").write_text(manifest_text("a"))
    return [request.param] if request.param != "plan" else ["plan", tmp_path / "a.yaml"]


def test_a_cluster_that_does_not_answer_is_one_sentence(kubeconfig, command):
    code, output, complaint = modelendpoint(*command)
    assert (code, output) == (1, "")
    assert "of namespace 'models': the cluster cannot be reached: " in complaint
    assert len(complaint.splitlines()) == 1


def test_a_context_that_is_not_there_is_one_sentence(kubeconfig, command):
    code, _, complaint = modelendpoint(*command, "--context", "there")
    assert code == 1
    assert complaint.startswith(f"the kubeconfig {kubeconfig} cannot be used: ")


@pytest.mark.parametrize("content", ["", "contexts: [", "[1]", "{}"])
def test_a_broken_kubeconfig_is_a_sentence(kubeconfig, command, content):
    kubeconfig.write_text(content)
    code, _, complaint = modelendpoint(*command)
    assert code == 1
    assert complaint.startswith(f"the kubeconfig {kubeconfig} cannot be used: ")


def test_a_missing_kubeconfig_is_one_sentence(kubeconfig, command):
    kubeconfig.unlink()
    assert modelendpoint(*command) == (
        1,
        "",
        f"there is no kubeconfig at {kubeconfig}; KUBECONFIG may name another one\n",
    )


def test_without_the_kubernetes_client_the_sentence_says_what_to_install(monkeypatch, command):
    monkeypatch.delitem(sys.modules, "endpoint_operator.cli.cluster", raising=False)
    monkeypatch.delattr("endpoint_operator.cli.cluster")
    monkeypatch.delitem(sys.modules, "endpoint_operator.kube.reader", raising=False)
    monkeypatch.setitem(sys.modules, "kubernetes.aio", None)
    code, _, complaint = modelendpoint(*command)
    assert code == 1
    assert "pip install 'model-endpoints[operator]'" in complaint


def watch(monkeypatch, *answers):
    """Run `status --watch` on a cluster that gives these answers; then Ctrl-C."""
    remaining = list(answers)

    class Cluster:
        namespace = "models"

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error):
            return None

        async def endpoints(self):
            answer = remaining.pop(0) if remaining else KeyboardInterrupt()
            if isinstance(answer, BaseException):
                raise answer
            return answer

    monkeypatch.setattr(cluster, "connect_reader", lambda context, namespace: Cluster())
    monkeypatch.setattr(cluster, "PAUSE_SECONDS", 0)
    return modelendpoint("status", "--watch")


def test_watching_shows_only_what_changed(monkeypatch):
    loading = stored(ready="False", reason="Deploying")
    code, output, _ = watch(monkeypatch, [loading], [loading], [stored()], [stored()])
    assert code == 0
    assert [line.split()[2] for line in output.splitlines() if line.startswith("a ")] == [
        "Deploying",
        "Serving",
    ]


def test_watching_outlives_trouble_and_tells_of_it_once(monkeypatch):
    trouble = KubeError("it is away")
    code, output, complaint = watch(monkeypatch, [stored()], trouble, trouble, [stored("b")])
    assert (code, complaint) == (0, "it is away\n")
    assert output.splitlines()[-1].startswith("b ")
