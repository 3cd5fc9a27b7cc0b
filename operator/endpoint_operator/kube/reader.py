"""Read, for the command line, what the cluster of a person's kubeconfig has; it writes nothing.

Each call is tried once and raises CannotReadClusterError with a sentence for people.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, cast

import aiohttp
import yaml
from kubernetes.aio import client, config

from endpoint_operator.api import types as api
from endpoint_operator.controller.observed import rayservice as ray_service

PAGE: Final = 500
TIMEOUT_SECONDS: Final = 15.0
PROFILES_KEY: Final = "profiles.yaml"


class CannotReadClusterError(Exception):
    """The cluster cannot be reached, or lacks what was asked for."""


@asynccontextmanager
async def live_cluster(context: str | None, namespace: str | None) -> AsyncIterator["LiveCluster"]:
    """Yield the cluster of `context`, or of the current one; without `namespace`, its own."""
    configuration = client.Configuration()
    home = await _load_kubeconfig(context, configuration)
    # A person waits for the answer; a sentence is better than another try.
    configuration.retries = 0
    async with client.ApiClient(configuration) as connection:
        yield LiveCluster(connection, namespace or home)


async def _load_kubeconfig(context: str | None, configuration: client.Configuration) -> str:
    """Fill `configuration` and return the namespace that the context names."""
    # The client's own default is what the variable said when it was imported.
    paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
    if not any(os.path.exists(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path):
        raise CannotReadClusterError(f"there is no kubeconfig at {paths}; KUBECONFIG may name another one")
    try:
        loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
            paths, context, client_configuration=configuration, persist_config=False
        )
    # The client trusts the file to have the right shape.
    except (config.ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise CannotReadClusterError(f"the kubeconfig {paths} cannot be used: {error}") from error
    return str(loader.current_context["context"].get("namespace") or "default")


class LiveCluster:
    """The objects of one namespace."""

    def __init__(self, connection: client.ApiClient, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(connection)
        self._core = client.CoreV1Api(connection)
        self.namespace = namespace

    async def endpoints(self) -> list[dict[str, Any]]:
        """Return all ModelEndpoints."""
        return await self._list(api.GROUP, api.VERSION, api.PLURAL)

    async def ray_service(self, name: str | None) -> dict[str, Any]:
        """Return the RayService; without a name, the only one that there is."""
        found = await self._list(ray_service.GROUP, ray_service.VERSION, ray_service.PLURAL)
        by_name = {service["metadata"]["name"]: service for service in found}
        there = ", ".join(sorted(by_name)) or "none"
        if name is not None and name not in by_name:
            raise CannotReadClusterError(
                f"namespace {self.namespace!r} has no RayService {name!r}; there is {there}"
            )
        if name is None and len(by_name) != 1:
            raise CannotReadClusterError(
                f"namespace {self.namespace!r} must have one RayService, or --ray-service say which; "
                f"there is {there}"
            )
        return by_name[name] if name is not None else found[0]

    async def profiles(self, service: str) -> str:
        """Return the text of the catalogue that the chart has made for the RayService `service`."""
        name = f"{service}-profiles"
        with _explained(f"read the ConfigMap {name!r} of namespace {self.namespace!r}"):
            found = await self._core.read_namespaced_config_map(
                name, self.namespace, _request_timeout=TIMEOUT_SECONDS
            )
        text = (found.data or {}).get(PROFILES_KEY)
        if text is None:
            raise CannotReadClusterError(f"the ConfigMap {name!r} has no key {PROFILES_KEY!r}")
        return str(text)

    async def _list(self, group: str, version: str, plural: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            with _explained(f"list {plural}.{group} of namespace {self.namespace!r}"):
                page = await self._objects.list_namespaced_custom_object(
                    group,
                    version,
                    self.namespace,
                    plural,
                    limit=PAGE,
                    _continue=token,
                    _request_timeout=TIMEOUT_SECONDS,
                )
            listed = cast(dict[str, Any], page)
            found += listed["items"]
            token = listed["metadata"].get("continue", "")
            if not token:
                return found


@contextmanager
def _explained(deed: str) -> Iterator[None]:
    """Turn what the client raises into a sentence that says what could not be done."""
    try:
        yield
    except client.ApiException as error:
        raise CannotReadClusterError(f"cannot {deed}: {_answer(error)}") from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        cause = str(error) or "no answer in time"
        raise CannotReadClusterError(f"cannot {deed}: the cluster cannot be reached: {cause}") from error


def _answer(error: client.ApiException) -> str:
    body = (error.body or "").strip()
    if error.status == 404 and not body.startswith("{"):
        # Only a kind that is not there is answered without a Status object.
        return "the cluster does not know this kind; its custom resource definition is not installed"
    try:
        message = json.loads(body)["message"]
    except (ValueError, TypeError, KeyError):
        message = f"{error.reason} {body[:200]}".strip()
    return f"{error.status}: {message}"
