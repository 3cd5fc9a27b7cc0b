"""Which RayService serves an endpoint: the one that `spec.runtime` names, or the namespace's default; pure.

Each release of the chart has one RayService, and one operator that serves the endpoints that belong to it.
"""

from collections.abc import Mapping
from typing import Final

from endpoint_operator.api.types import GROUP

# A label of the RayService, which the chart sets.
DEFAULT_RUNTIME_LABEL: Final = f"{GROUP}/default-runtime"


def belongs(spec_runtime: str, ray_service: str, *, is_default: bool) -> bool:
    """Return whether an endpoint with this `spec.runtime` is served by the RayService of this name."""
    return spec_runtime == ray_service if spec_runtime else is_default


def is_default_runtime(labels: Mapping[str, str], *, is_only_one: bool) -> bool:
    """Return whether a RayService with these labels serves the endpoints that name none.

    One without the label does if it is the only RayService of its namespace.
    """
    marked = labels.get(DEFAULT_RUNTIME_LABEL)
    return is_only_one if marked is None else marked == "true"
