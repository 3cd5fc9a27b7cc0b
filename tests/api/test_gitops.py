"""What docs/gitops.md says of tools that apply the rendered chart, with kubectl on a real API server."""

import json

import pytest
import yaml

from hack.cluster.helm import Helm
from hack.paths import CHART, PROJECT
from tests.api.test_chart_lookup import REQUIRED

FIELD = '{"applications": []}'


@pytest.fixture
def rendered(api_server, namespace, tmp_path):
    """A file with the RayService as the chart renders it for this namespace."""
    text = Helm(api_server)(
        *("template", "models", str(CHART), f"--namespace={namespace}"),
        f"--set={REQUIRED},auth.secretName=ray-token",
    )
    [service] = [each for each in yaml.safe_load_all(text) if each and each["kind"] == "RayService"]
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump(service))
    return file


@pytest.mark.parametrize(
    "options",
    [["--server-side", "--force-conflicts", "--field-manager=argocd-controller"], []],
    ids=["server-side", "client-side"],
)
def test_an_apply_of_what_is_rendered_leaves_the_operator_s_field_alone(
    kubectl, ray_services, namespace, rendered, options
):
    place = f"--namespace={namespace}"
    kubectl("apply", place, f"--filename={rendered}", *options)
    field = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "models-model-endpoints"},
        "spec": {"serveConfigV2": FIELD},
    }
    operator = ("--server-side", "--field-manager=model-endpoints-operator", "--validate=false")
    kubectl("apply", place, *operator, "--filename=-", manifest=field)
    before = kubectl.get("rayservice", "models-model-endpoints", place)
    assert before["spec"]["serveConfigV2"] == FIELD
    kubectl("apply", place, f"--filename={rendered}", *options)
    after = kubectl.get("rayservice", "models-model-endpoints", place)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_the_health_check_is_added_to_argo_cd_s_configuration_and_takes_nothing_from_it(kubectl, namespace):
    place = f"--namespace={namespace}"
    kubectl("create", "configmap", "argocd-cm", place, "--from-literal=url=https://argocd.example")
    patch = yaml.safe_load((PROJECT / "manifests/argocd/health-modelendpoint.yaml").read_text())
    # Its own namespace is Argo CD's.
    patch["metadata"]["namespace"] = namespace
    kubectl("patch", "configmap", "argocd-cm", place, f"--patch={json.dumps(patch)}")
    data = kubectl.get("configmap", "argocd-cm", place)["data"]
    assert data == {"url": "https://argocd.example"} | patch["data"]
