"""Manifests as a person sends them to the API server."""

from typing import Any

from tests.unit.builders import manifest


def document(name: str = "sentiment", **spec: Any) -> dict[str, Any]:
    """Return the smallest valid manifest with each section of `spec` laid over it."""
    # Without the metadata that only a server sets.
    return manifest(name, **spec) | {"metadata": {"name": name}}
