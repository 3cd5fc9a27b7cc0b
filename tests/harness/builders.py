"""Small valid things, so that a test states only what it changes."""

import asyncio
import copy
from collections.abc import Iterator

import pytest

from endpoint_operator.api.profiles import LocalMachine, parse_profiles
from endpoint_operator.api.types import ApiModel, ModelEndpointSpec, parse_endpoint

GIBIBYTE = 2**30

LONGEST_SECONDS = 4

MACHINE = LocalMachine(cpus=4, memory_bytes=8 * GIBIBYTE, accelerators=0)

CLUSTER = parse_profiles(
    {
        "profiles": [
            {"name": "cpu", "cpus": 8, "memory": "16Gi"},
            {"name": "gpu-t4", "accelerators": 4, "cpus": 16, "memory": "64Gi"},
        ],
        "sources": {"tokenSecrets": ["team-a"]},
    }
)

DEFAULT_MODEL = {"uri": "file:///models/sentiment", "task": "text-classification"}


def manifest(name="sentiment", *, namespace="default", created="", **spec):
    """Return a decoded manifest; each section of `spec` is laid over the smallest valid one."""
    return {
        "apiVersion": "serving.modelendpoint.dev/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": {**copy.deepcopy(spec), "model": DEFAULT_MODEL | spec.get("model", {})},
    }


def endpoint(name="sentiment", **changes):
    """Return the endpoint of `manifest(name, **changes)`."""
    return parse_endpoint(manifest(name, **changes))


def with_value(document, path, value):
    """Return a copy of `document` whose field at the dotted `path` is `value`."""
    changed = copy.deepcopy(document)
    *parents, last = path.split(".")
    inner = changed
    for part in parents:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return changed


def manifest_text(name="sentiment", uri="file:///models/sentiment", task="text-classification"):
    """Return a manifest of seven lines as a person would write it."""
    return (
        "apiVersion: serving.modelendpoint.dev/v1alpha1\n"
        "kind: ModelEndpoint\n"
        f"metadata: {{name: {name}}}\n"
        "spec:\n"
        "  model:\n"
        f"    uri: {uri}\n"
        f"    task: {task}\n"
    )


def run(coroutine):
    """Run a coroutine to its end; one that hangs fails after LONGEST_SECONDS."""

    async def outcome():
        limited = asyncio.ensure_future(coroutine)
        done, _ = await asyncio.wait([limited], timeout=LONGEST_SECONDS)
        if not done:
            limited.cancel()
            await asyncio.gather(limited, return_exceptions=True)
            pytest.fail(f"still running after {LONGEST_SECONDS} seconds", pytrace=False)
        return limited.result()

    return asyncio.run(outcome())


async def until(condition):
    """Wait until `condition()` is true; `run` bounds the wait."""
    while not condition():
        await asyncio.sleep(0.001)


def spec_fields() -> set[str]:
    """Return the path of each field of the spec that has no fields of its own, as `model.uri`."""
    return set(_fields(ModelEndpointSpec, ""))


def _fields(model: type[ApiModel], path: str) -> Iterator[str]:
    for field in model.model_fields.values():
        below = f"{path}{field.alias}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, ApiModel):
            yield from _fields(field.annotation, f"{below}.")
        else:
            yield below
