"""What an upgrade of the chart does to the Ray cluster, by the table of the chart's README."""

import copy
import json

import pytest
import yaml

from endpoint_operator.cli.chart_changes import Effect, chart_changes
from hack.paths import CHART
from tests.chart.rendering import REQUIRED, of_kind, template

PROFILES = yaml.safe_load((CHART / "values.yaml").read_text())["profiles"]
GPU = {"name": "gpu", "cpus": 8, "memory": "32Gi", "accelerators": 1}


def spec(*options, chart=CHART):
    [service] = of_kind(template(*options, chart=chart), "RayService")
    return service["spec"]


def in_a_cluster(*options):
    """Return the spec with what the operator and the API server add to it."""
    live = spec(*options) | {"serveConfigV2": "applications: []"}
    live["serveService"]["status"] = {"loadBalancer": {}}
    [container] = live["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    for port in container["ports"]:
        port["protocol"] = "TCP"
    return live


def effects(*options, before=()):
    return {change.effect for change in chart_changes(in_a_cluster(*before), spec(*before, *options))}


def profiles(*given):
    return f"--set-json=profiles={json.dumps(given)}"


@pytest.mark.parametrize(
    ("options", "effect"),
    [
        (("--set=operator.image.tag=next,operator.settings.failedSeconds=9",), None),
        (("--set=externalUrl=https://models.example.com", "--set=networkPolicy.enabled=false"), None),
        (("--set-string=head.faultTolerance.valkey.image.tag=9",), None),
        ((profiles(*PROFILES, GPU),), Effect.ADDED),
        ((profiles(PROFILES[0] | {"minWorkers": 2, "tolerations": [{"key": "a"}]}),), Effect.LATER),
        (("--set-json=head.tolerations=[{\"key\": \"a\"}]",), Effect.LATER),
        (("--set=rayService.rayClusterDeletionDelaySeconds=9",), Effect.AT_ONCE),
        (("--set=rayService.upgradeStrategy.type=None",), Effect.AT_ONCE),
        (("--set=service.port=80",), Effect.SERVICE),
        (("--set=image.tag=build-2",), Effect.REPLACED),
        (("--set=head.faultTolerance.store=none",), Effect.REPLACED),
        (("--set=drain.seconds=60",), Effect.REPLACED),
        (("--set=hub.offline=true",), Effect.REPLACED),
        ((profiles(PROFILES[0] | {"cpus": 9}),), Effect.REPLACED),
    ],
)  # fmt: skip
def test_each_change_has_the_effect_that_the_readme_says(options, effect):
    assert effects(*options) == ({effect} if effect else set())


def test_a_profile_that_is_put_before_others_or_removed_replaces_the_cluster():
    assert Effect.REPLACED in effects(profiles(GPU, *PROFILES))
    both = [profiles(*PROFILES, GPU)]
    assert Effect.REPLACED in effects(profiles(*PROFILES), before=both)


def test_the_chart_s_version_changes_nothing(tmp_path):
    chart = tmp_path / "chart"
    chart.mkdir()
    for path in CHART.iterdir():
        (chart / path.name).symlink_to(path)
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (chart / "Chart.yaml").unlink()
    (chart / "Chart.yaml").write_text(yaml.safe_dump(metadata | {"version": "9.9.9", "appVersion": "9.9.9"}))
    assert chart_changes(spec(), spec(chart=chart)) == ()


def test_a_change_names_the_container_and_both_values():
    before = spec()
    after = copy.deepcopy(before)
    [container] = after["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    container["image"] = "other:1"
    [change] = chart_changes(before, after)
    assert str(change) == (
        "rayClusterConfig.headGroupSpec.template.spec.containers[ray-head].image: "
        "registry.example/serve:build-1 → other:1"
    )
    assert REQUIRED[0].endswith("image.tag=build-1")
