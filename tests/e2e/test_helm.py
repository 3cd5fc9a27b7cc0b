"""What an installed release runs, and what `helm upgrade` does to one that serves."""

import copy
import json
import sys

import yaml

from hack.commands import run
from tests.e2e.release import VALUES

# Prints the digests of the files of a package by their names, as it is installed where this runs.
DIGESTS = """
import hashlib, importlib.util, json, pathlib, sys
folder = pathlib.Path(importlib.util.find_spec(sys.argv[1]).origin).parent
files = [path for path in folder.rglob("*") if path.is_file()]
print(json.dumps({str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}))
"""


def test_the_pods_run_the_code_of_this_checkout(release):
    [head] = release.pods(node_type="head", cluster=release.cluster())
    for package, pod, container in (
        ("serve_app", head["metadata"]["name"], "ray-head"),
        ("endpoint_operator", f"deployment/{release.name}-operator", "operator"),
    ):
        script = ("-c", DIGESTS, package)
        here = json.loads(run(sys.executable, *script))
        there = json.loads(release.kubectl("exec", pod, f"--container={container}", "--", "python3", *script))
        differing = [name for name, digest in here.items() if there.get(name) != digest]
        # The .pth file is installed beside the packages.
        assert [name for name in differing if not name.endswith((".pyc", ".pth"))] == []
        assert "__init__.py" in here


def test_an_upgrade_without_force_leaves_the_serve_config_and_the_cluster_alone(release, steady):
    before, cluster = release.serve_config(), release.cluster()
    release.install()
    assert release.serve_config() == before
    assert release.cluster() == cluster
    assert release.answers(steady)["label"] == "POSITIVE"


def test_appending_a_profile_adds_a_worker_group_to_the_same_ray_cluster(release, steady, tmp_path):
    values = yaml.safe_load(VALUES.read_text())
    more = copy.deepcopy(values["profiles"])
    more.append({"name": "large", "cpus": 8, "memory": "8Gi", "requests": {"cpu": "100m", "memory": "1Gi"}})
    file = tmp_path / "more.yaml"
    file.write_text(yaml.safe_dump({"profiles": more}))
    cluster = release.cluster()
    with release.load(steady) as load:
        release.install(f"--values={file}")

        def groups():
            spec = release.get("raycluster", cluster)["spec"]
            return [group["groupName"] for group in spec["workerGroupSpecs"]]

        release.wait_for("the group is there", lambda: groups() == ["cpu", "gpu", "large"], seconds=60)
    assert release.cluster() == cluster
    assert load.failures == []
