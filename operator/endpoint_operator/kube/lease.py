"""The requests for one Lease: objects in, objects out, nothing is decided."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from kubernetes.aio import client

from endpoint_operator.kube.errors import NotFoundError, api_errors

_LEASES: Final = ("coordination.k8s.io", "v1")
_PLURAL: Final = "leases"


class LeaseClient:
    """One Lease, which goes with its owner. Each request is tried once, for at most `timeout` seconds."""

    def __init__(
        self,
        objects: client.CustomObjectsApi,
        namespace: str,
        name: str,
        timeout: float,
        owner: Callable[[], Awaitable[Mapping[str, Any] | None]],
    ) -> None:
        self._objects = objects
        self._namespace = namespace
        self._timeout = timeout
        self._owner = owner
        self.name = name

    async def read(self) -> dict[str, Any] | None:
        """Return the Lease; None if it does not exist."""
        try:
            with api_errors(f"read the Lease {self.name!r}"):
                found = await self._objects.get_namespaced_custom_object(
                    *_LEASES, self._namespace, _PLURAL, self.name, _request_timeout=self._timeout
                )
        except NotFoundError:
            return None
        return cast(dict[str, Any], found)

    async def create(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Create the Lease and return it; ConflictError if it exists."""
        owner = await self._owner()
        # What an uninstall does not know would stay.
        owners = [] if owner is None else [_reference(owner)]
        body = {
            "apiVersion": "/".join(_LEASES),
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self._namespace, "ownerReferences": owners},
            "spec": dict(spec),
        }
        with api_errors(f"create the Lease {self.name!r}"):
            created = await self._objects.create_namespaced_custom_object(
                *_LEASES, self._namespace, _PLURAL, body, _request_timeout=self._timeout
            )
        return cast(dict[str, Any], created)

    async def replace(self, manifest: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        """Give the Lease that was read as `manifest` another spec, and return it.

        ConflictError if it has changed meanwhile, NotFoundError if it was deleted.
        """
        # The metadata holds uid and resourceVersion, by which the API server knows what is replaced.
        body = {**manifest, "spec": dict(spec)}
        with api_errors(f"renew the Lease {self.name!r}"):
            replaced = await self._objects.replace_namespaced_custom_object(
                *_LEASES, self._namespace, _PLURAL, self.name, body, _request_timeout=self._timeout
            )
        return cast(dict[str, Any], replaced)


def _reference(owner: Mapping[str, Any]) -> dict[str, str]:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
