"""Which RayService serves an endpoint."""

import pytest

from endpoint_operator.api.runtime import DEFAULT_RUNTIME_LABEL, belongs, is_default_runtime


@pytest.mark.parametrize(
    ("spec_runtime", "is_default", "expected"),
    [("ray", False, True), ("ray", True, True), ("other", True, False), ("", True, True), ("", False, False)],
)
def test_an_endpoint_belongs_to_the_ray_service_that_it_names_or_else_to_the_default(
    spec_runtime, is_default, expected
):
    assert belongs(spec_runtime, "ray", is_default=is_default) is expected


@pytest.mark.parametrize(
    ("labels", "is_only_one", "expected"),
    [
        ({DEFAULT_RUNTIME_LABEL: "true"}, False, True),
        ({DEFAULT_RUNTIME_LABEL: "false"}, True, False),
        ({"app": "ray"}, True, True),
        ({}, False, False),
    ],
)
def test_the_default_runtime_is_the_marked_or_the_only_one(labels, is_only_one, expected):
    assert is_default_runtime(labels, is_only_one=is_only_one) is expected
