"""Which images the chart runs: those that its user names, and none that somebody else may publish."""

import shutil

import pytest
import yaml

from hack.errors import CommandError
from hack.paths import CHART
from tests.chart.rendering import REQUIRED, of_kind, operator_pod, ray_pods, template, template_as_given

DIGEST = "sha256:" + "0123456789abcdef" * 4


def ray_image(*options):
    [image] = {pod["spec"]["containers"][0]["image"] for pod in ray_pods(template(*options))}
    return image


def operator_image(*options):
    return operator_pod(template(*options))[1]["image"]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("image.repository=", "image.repository is empty"),
        ("image.tag=", "image.tag and image.digest are empty"),
        ("operator.image.repository=", "operator.image.repository is empty"),
    ],
)
def test_an_image_that_is_not_named_is_refused_with_where_to_get_one(missing, said):
    with pytest.raises(CommandError) as refused:
        template(f"--set={missing}")
    assert said in str(refused.value)
    assert "make images" in str(refused.value)


def test_the_chart_by_itself_names_no_image():
    with pytest.raises(CommandError, match="make images"):
        template_as_given("--set=auth.secretName=ray-auth")


def test_a_tag_is_the_one_that_is_given():
    assert ray_image("--set=image.tag=build-7") == "registry.example/serve:build-7"
    assert operator_image("--set=operator.image.tag=build-7") == "registry.example/operator:build-7"


def test_the_operator_is_of_the_chart_s_version_unless_said_otherwise():
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert operator_image() == f"registry.example/operator:{version}"


def test_a_digest_is_enough_and_wins():
    assert ray_image(f"--set=image.digest={DIGEST},image.tag=") == f"registry.example/serve@{DIGEST}"
    assert ray_image(f"--set=image.digest={DIGEST}") == f"registry.example/serve@{DIGEST}"
    assert operator_image(f"--set=operator.image.digest={DIGEST}") == f"registry.example/operator@{DIGEST}"


def test_what_is_no_digest_is_refused():
    with pytest.raises(CommandError, match="/image/digest"):
        template("--set=image.digest=latest")


def test_another_version_of_the_chart_changes_nothing_of_the_ray_cluster(tmp_path):
    """A changed pod makes KubeRay replace the whole Ray cluster."""
    newer = shutil.copytree(CHART, tmp_path / "newer")
    about = yaml.safe_load((newer / "Chart.yaml").read_text())
    (newer / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": "9.9.9", "appVersion": "9.9.9"}))
    before, after = template(), template(chart=newer)
    assert operator_pod(before) != operator_pod(after)
    [old], [new] = of_kind(before, "RayService"), of_kind(after, "RayService")
    assert new["spec"] == old["spec"]


def test_what_must_be_named_is_only_that():
    assert template_as_given(*REQUIRED)
