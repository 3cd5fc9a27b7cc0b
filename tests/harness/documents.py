"""Manifests as a person or a chart sends them to the API server."""

from typing import Any

from tests.harness.builders import manifest


def document(name: str = "sentiment", **spec: Any) -> dict[str, Any]:
    """Return the smallest valid manifest with each section of `spec` laid over it."""
    # Without the metadata that only a server sets.
    return manifest(name, **spec) | {"metadata": {"name": name}}


def ray_service(name: str = "ray") -> dict[str, Any]:
    """Return the smallest RayService that its CRD takes; it has no serveConfigV2, as the chart's has none."""
    pod = {"spec": {"containers": [{"name": "ray-head", "image": "ray"}]}}
    cluster = {"headGroupSpec": {"rayStartParams": {}, "template": pod}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name},
        "spec": {"rayClusterConfig": cluster},
    }
