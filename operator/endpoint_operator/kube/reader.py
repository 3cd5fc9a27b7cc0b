"""Read-only access to a cluster for the command, with the kubeconfig of the person who runs it.

Each request is tried once and raises KubeError with a sentence for people.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import yaml
from kubernetes.aio import client, config

from endpoint_operator.api.runtime import is_default_runtime
from endpoint_operator.kube.client import list_objects
from endpoint_operator.kube.errors import KubeError, api_errors
from endpoint_operator.kube.kinds import MODEL_ENDPOINT, RAY_SERVICE

TIMEOUT_SECONDS: Final = 15.0
PROFILES_KEY: Final = "profiles.yaml"


@asynccontextmanager
async def connect_reader(context: str | None, namespace: str | None) -> AsyncIterator["KubeReader"]:
    """Yield a reader of `namespace` in the cluster of `context`; the kubeconfig has the default of each."""
    configuration = client.Configuration()
    default_namespace = await _load_kubeconfig(context, configuration)
    # Somebody waits for the answer, so that an error at once is better than another try.
    configuration.retries = 0
    async with client.ApiClient(configuration) as connection:
        yield KubeReader(connection, namespace or default_namespace)


async def _load_kubeconfig(context: str | None, configuration: client.Configuration) -> str:
    """Fill `configuration` and return the namespace that the context names."""
    # The client's own default is the value that the variable had when the client was imported.
    paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
    if not any(os.path.exists(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path):
        raise KubeError(f"there is no kubeconfig at {paths}; KUBECONFIG may name another one")
    try:
        loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
            paths, context, client_configuration=configuration, persist_config=False
        )
    # The client trusts the file to have the right shape.
    except (config.ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise KubeError(f"the kubeconfig {paths} cannot be used: {error}") from error
    return str(loader.current_context["context"].get("namespace") or "default")


@dataclass(frozen=True)
class RayServiceView:
    """A RayService, and whether it serves the endpoints that name no runtime."""

    name: str
    spec: Mapping[str, Any]
    is_default: bool

    @property
    def serve_config(self) -> str:
        """The Serve config as text; empty if there is none yet."""
        return str(self.spec.get("serveConfigV2", ""))


class KubeReader:
    """The objects of one namespace."""

    def __init__(self, connection: client.ApiClient, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(connection)
        self._core = client.CoreV1Api(connection)
        self.namespace = namespace

    async def endpoints(self) -> list[dict[str, Any]]:
        return await list_objects(self._objects, MODEL_ENDPOINT, self.namespace, TIMEOUT_SECONDS)

    async def ray_service(self, name: str | None) -> RayServiceView:
        """Return the RayService `name`; without a name, the namespace's only one or its default runtime."""
        found = await list_objects(self._objects, RAY_SERVICE, self.namespace, TIMEOUT_SECONDS)
        views = [_view(service, is_only_one=len(found) == 1) for service in found]
        there = ", ".join(sorted(view.name for view in views)) or "none"
        if name is not None:
            chosen = [view for view in views if view.name == name]
        else:
            chosen = views if len(views) == 1 else [view for view in views if view.is_default]
        if len(chosen) == 1:
            return chosen[0]
        if name is not None:
            raise KubeError(f"namespace {self.namespace!r} has no RayService {name!r}; there is {there}")
        raise KubeError(
            f"namespace {self.namespace!r} must have one RayService or one default runtime, or --ray-service "
            f"say which; there is {there}"
        )

    async def profiles(self, ray_service: str) -> str:
        """Return the text of the profiles file that the chart made for the RayService `ray_service`."""
        name = f"{ray_service}-profiles"
        with api_errors(f"read the ConfigMap {name!r} of namespace {self.namespace!r}"):
            found = await self._core.read_namespaced_config_map(
                name, self.namespace, _request_timeout=TIMEOUT_SECONDS
            )
        text = (found.data or {}).get(PROFILES_KEY)
        if text is None:
            raise KubeError(f"the ConfigMap {name!r} has no key {PROFILES_KEY!r}")
        return str(text)


def _view(service: dict[str, Any], *, is_only_one: bool) -> RayServiceView:
    metadata = service["metadata"]
    return RayServiceView(
        name=metadata["name"],
        spec=service["spec"],
        is_default=is_default_runtime(metadata.get("labels") or {}, is_only_one=is_only_one),
    )
