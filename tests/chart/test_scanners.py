"""checkov and kubernetes-validate find nothing that charts/model-endpoints/.checkov.yaml does not explain."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from hack.commands import run
from hack.paths import CHART
from tests.chart.rendering import CUSTOMISED, EVERYTHING, SCENARIOS, of_kind, ray_pods, template

EXPLAINED = CHART / ".checkov.yaml"
KUBERNETES = "1.35"
VALUES = {
    "default": [],
    "everything": EVERYTHING,
    "customised": CUSTOMISED,
    "kind": [f"--values={SCENARIOS[0]}"],
}


def scanner(requirement, *arguments):
    """Run a scanner in an environment of its own: its requirements do not go with ours."""
    return run(str(Path(sys.executable).with_name("uv")), "tool", "run", "--quiet", requirement, *arguments)


@pytest.fixture(scope="module", params=VALUES)
def objects(request, tmp_path_factory):
    """The rendered objects, and the pods of the RayService, which scanners do not know, as pods."""
    documents = template(*VALUES[request.param])
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": pod["metadata"] | {"name": f"ray-{number}", "namespace": "here"},
            "spec": pod["spec"],
        }
        for number, pod in enumerate(ray_pods(documents))
    ]
    file = tmp_path_factory.mktemp("rendered") / "objects.yaml"
    file.write_text(yaml.safe_dump_all([*documents, *pods]))
    return file


def findings(file, *options):
    output = scanner(
        "checkov@3.3.30",
        *(f"--file={file}", "--framework=kubernetes", "--output=json", "--soft-fail", "--skip-download"),
        *options,
    )
    report = json.loads(output)
    assert report["summary"]["passed"] > 100
    return {check["check_id"] for check in report["results"]["failed_checks"]}


def test_checkov_finds_only_what_is_explained(objects):
    explained = yaml.safe_load(EXPLAINED.read_text())["skip-check"]
    assert findings(objects) == set(explained)
    assert findings(objects, f"--config-file={EXPLAINED}") == set()


def test_every_object_is_of_its_schema(objects):
    # It does not know kinds of KubeRay and of Prometheus; a real API server sees the former in other tests.
    output = scanner(
        "kubernetes-validate@1.37.0", f"--kubernetes-version={KUBERNETES}", "--strict", str(objects)
    )
    known = [each for each in yaml.safe_load_all(objects.read_text()) if "." not in each["apiVersion"]]
    assert output.count(" passed for resource ") >= len(known)
    assert len(of_kind(known, "Pod")) >= 2
