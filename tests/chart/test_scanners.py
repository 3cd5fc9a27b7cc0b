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
KUBERNETES = "1.37"
VALUES = {
    "default": [],
    "everything": EVERYTHING,
    "customised": CUSTOMISED,
    "kind": [f"--values={SCENARIOS[0]}"],
}


def scanner(requirement, *arguments):
    """Run a scanner in an environment of its own: its requirements do not go with ours."""
    return run(str(Path(sys.executable).with_name("uv")), "tool", "run", "--quiet", requirement, *arguments)


def rendered(name, folder):
    """Write the rendered objects, and the pods of the RayService, which scanners do not know, as pods."""
    documents = template(*VALUES[name])
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": pod["metadata"] | {"name": f"ray-{number}", "namespace": "here"},
            "spec": pod["spec"],
        }
        for number, pod in enumerate(ray_pods(documents))
    ]
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump_all([*documents, *pods]))
    return file


def findings(folder, *options):
    """Return the checks that failed in each file of the folder."""
    output = scanner(
        "checkov@3.3.30",
        *(f"--directory={folder}", "--framework=kubernetes", "--output=json", "--soft-fail"),
        *("--skip-download", *options),
    )
    report = json.loads(output)
    assert report["summary"]["passed"] > 100 * len(VALUES)
    failed = {name: set() for name in VALUES}
    for check in report["results"]["failed_checks"]:
        failed[Path(check["file_path"]).stem].add(check["check_id"])
    return failed


def test_checkov_finds_only_what_is_explained(tmp_path):
    # One run for all values: a scanner's start takes longer than its work.
    for name in VALUES:
        rendered(name, tmp_path)
    explained = set(yaml.safe_load(EXPLAINED.read_text())["skip-check"])
    assert findings(tmp_path) == dict.fromkeys(VALUES, explained)
    assert findings(tmp_path, f"--config-file={EXPLAINED}") == dict.fromkeys(VALUES, set())


@pytest.mark.parametrize("name", VALUES)
def test_every_object_is_of_its_schema(name, tmp_path):
    objects = rendered(name, tmp_path)
    # It does not know kinds of KubeRay and of Prometheus; a real API server sees the former in other tests.
    output = scanner(
        "kubernetes-validate@1.37.0", f"--kubernetes-version={KUBERNETES}", "--strict", str(objects)
    )
    known = [each for each in yaml.safe_load_all(objects.read_text()) if "." not in each["apiVersion"]]
    assert output.count(" passed for resource ") >= len(known)
    assert len(of_kind(known, "Pod")) >= 2
