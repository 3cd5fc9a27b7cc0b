"""Which of the releases in one namespace serves the endpoints that name none."""

import pytest

from tests.chart.rendering import environment, of_kind, operator_pod, template

LABEL = "serving.modelendpoint.dev/default-runtime"


@pytest.mark.parametrize(("options", "is_default"), [([], True), (["--set=runtime.default=false"], False)])
def test_the_operator_and_the_ray_service_say_whether_the_runtime_is_the_default(options, is_default):
    documents = template(*options)
    _, container = operator_pod(documents)
    assert environment(container)["OPERATOR_DEFAULT_RUNTIME"] == str(is_default).lower()
    [service] = of_kind(documents, "RayService")
    assert service["metadata"]["labels"].get(LABEL) == ("true" if is_default else None)


def test_whether_it_is_the_default_changes_nothing_of_the_ray_cluster():
    [default], [other] = (
        of_kind(template(f"--set=runtime.default={value}"), "RayService") for value in ("true", "false")
    )
    assert default["spec"] == other["spec"]


def test_two_releases_share_no_object_but_the_definition():
    first, second = template("--set=runtime.default=true"), template(release="second")
    names = [
        {(each["kind"], each["metadata"]["name"]) for each in documents} for documents in (first, second)
    ]
    assert {kind for kind, _ in names[0] & names[1]} == {"CustomResourceDefinition"}
