"""What `helm upgrade` does to a release that serves."""

import copy

import yaml

from tests.e2e.release import VALUES


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
