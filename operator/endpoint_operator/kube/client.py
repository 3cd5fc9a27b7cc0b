"""The only calls to the Kubernetes API: read both kinds, write one field of a RayService, statuses, events.

Each call has a time limit, is tried once, and raises ClusterError with a sentence for people.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import aiohttp
from kubernetes.aio import client, config

from endpoint_operator.api import types as api
from endpoint_operator.controller.announcements import Announcement
from endpoint_operator.controller.observed import rayservice as ray_service
from endpoint_operator.controller.observed.rayservice import RayService

FIELD_MANAGER: Final = "model-endpoints-operator"
PAGE: Final = 500

_APPLY: Final = "application/apply-patch+yaml"
_EVENTS: Final = ("events.k8s.io", "v1")
_ENDPOINTS: Final = (api.GROUP, api.VERSION)
_RAY_SERVICES: Final = (ray_service.GROUP, ray_service.VERSION)

# What KubeRay says when it cannot hand a document over, and the part of it that is Ray's own word.
_NOT_HANDED_OVER: Final = "FailedToUpdateServeApplications"
_REFUSED: Final = "UpdateDeployments fail: 4"


class ClusterError(Exception):
    """The API server did not do what it was asked to, and wants to be spared for `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFoundError(ClusterError):
    """The object, or its kind, does not exist."""


class ConflictError(ClusterError):
    """The object is not the one any more that the decision was about."""


class InvalidError(ClusterError):
    """The API server does not take this content, whenever it is sent."""


_ERRORS: Final[Mapping[int, type[ClusterError]]] = {404: NotFoundError, 409: ConflictError, 422: InvalidError}


@dataclass(frozen=True)
class Place:
    """Where the operator works."""

    namespace: str
    ray_service: str


@asynccontextmanager
async def connected(place: Place, timeout: float) -> AsyncIterator["Cluster"]:
    """Yield access to the cluster that the pod's account or the kubeconfig names."""
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise ClusterError(f"there is neither a pod's account nor a kubeconfig: {error}") from error
    async with client.ApiClient(configuration) as connection:
        yield Cluster(client.CustomObjectsApi(connection), place, timeout)


class Cluster:
    """The objects of one namespace."""

    def __init__(self, objects: client.CustomObjectsApi, place: Place, timeout: float) -> None:
        self._objects = objects
        self._place = place
        self._timeout = timeout

    async def check_access(self) -> None:
        """Raise ClusterError unless both kinds are there and may be read."""
        for group, version, plural in ((*_ENDPOINTS, api.PLURAL), (*_RAY_SERVICES, ray_service.PLURAL)):
            with _explained(f"list {plural}.{group} of namespace {self._place.namespace!r}"):
                await self._objects.list_namespaced_custom_object(
                    group, version, self._place.namespace, plural, limit=1, _request_timeout=self._timeout
                )

    async def list_endpoints(self) -> list[dict[str, Any]]:
        """Return all ModelEndpoints; page by page, and nothing unless all pages came."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            with _explained(f"list the ModelEndpoints of namespace {self._place.namespace!r}"):
                page = await self._objects.list_namespaced_custom_object(
                    *_ENDPOINTS,
                    self._place.namespace,
                    api.PLURAL,
                    limit=PAGE,
                    _continue=token,
                    _request_timeout=self._timeout,
                )
            listed = cast(dict[str, Any], page)
            kind = {"apiVersion": f"{api.GROUP}/{api.VERSION}", "kind": api.KIND}
            found += [kind | item for item in listed["items"]]
            token = listed["metadata"].get("continue", "")
            if not token:
                return found

    async def has_endpoint(self, name: str) -> bool:
        """Return whether the ModelEndpoint exists and is not on its way out."""
        try:
            with _explained(f"read the ModelEndpoint {name!r}"):
                found = await self._objects.get_namespaced_custom_object(
                    *_ENDPOINTS, self._place.namespace, api.PLURAL, name, _request_timeout=self._timeout
                )
        except NotFoundError:
            return False
        return "deletionTimestamp" not in cast(dict[str, Any], found)["metadata"]

    async def is_kind_leaving(self) -> bool:
        """Return whether the kind ModelEndpoint itself is being removed.

        The API server then deletes its objects one after the other, and says that none can be created any
        more (apiextensions-apiserver, customresource_discovery_controller.go).
        """
        with _explained(f"look up what can be done with {api.PLURAL}.{api.GROUP}"):
            found = await self._objects.get_api_resources(*_ENDPOINTS, _request_timeout=self._timeout)
        return not any(kind.name == api.PLURAL and "create" in kind.verbs for kind in found.resources)

    async def get_ray_service(self) -> dict[str, Any] | None:
        """Return the RayService; None if it does not exist."""
        try:
            with _explained(f"read the RayService {self._place.ray_service!r}"):
                found = await self._objects.get_namespaced_custom_object(
                    *_RAY_SERVICES,
                    self._place.namespace,
                    ray_service.PLURAL,
                    self._place.ray_service,
                    _request_timeout=self._timeout,
                )
        except NotFoundError:
            return None
        return cast(dict[str, Any], found)

    async def apply_serve_config(self, service: RayService, document: str) -> dict[str, Any]:
        """Make `document` the Serve config of `service`, unless that has changed since it was read."""
        with _explained(f"write the Serve config of the RayService {self._place.ray_service!r}"):
            written = await self._objects.patch_namespaced_custom_object(
                *_RAY_SERVICES,
                self._place.namespace,
                ray_service.PLURAL,
                self._place.ray_service,
                {
                    "apiVersion": f"{ray_service.GROUP}/{ray_service.VERSION}",
                    "kind": ray_service.KIND,
                    "metadata": self._identity(
                        self._place.ray_service, service.uid, service.resource_version
                    ),
                    "spec": {"serveConfigV2": document},
                },
                field_manager=FIELD_MANAGER,
                force=True,
                _content_type=_APPLY,
                _request_timeout=self._timeout,
            )
        return cast(dict[str, Any], written)

    async def apply_status(
        self, name: str, uid: str, resource_version: str, status: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Make `status` that of the ModelEndpoint, unless it has changed since it was read."""
        with _explained(f"write the status of the ModelEndpoint {name!r}"):
            written = await self._objects.patch_namespaced_custom_object_status(
                *_ENDPOINTS,
                self._place.namespace,
                api.PLURAL,
                name,
                {
                    "apiVersion": f"{api.GROUP}/{api.VERSION}",
                    "kind": api.KIND,
                    "metadata": self._identity(name, uid, resource_version),
                    "status": dict(status),
                },
                field_manager=FIELD_MANAGER,
                force=True,
                _content_type=_APPLY,
                _request_timeout=self._timeout,
            )
        return cast(dict[str, Any], written)

    async def was_refused(self, service: RayService, since: datetime) -> bool:
        """Return whether Ray has refused a document of `service` after `since`, by KubeRay's events."""
        with _explained("list events"):
            listed = await self._objects.list_namespaced_custom_object(
                *_EVENTS,
                self._place.namespace,
                "events",
                field_selector=f"regarding.uid={service.uid},reason={_NOT_HANDED_OVER}",
                _request_timeout=self._timeout,
            )
        events = cast(dict[str, Any], listed)["items"]
        return any(_REFUSED in event.get("note", "") and _last_seen(event) > since for event in events)

    async def announce(self, announcement: Announcement, now: datetime) -> None:
        """Create an event about the object of `announcement`."""
        with _explained("create an event"):
            await self._objects.create_namespaced_custom_object(
                *_EVENTS,
                self._place.namespace,
                "events",
                announcement.to_event(self._place.namespace, FIELD_MANAGER, now),
                _request_timeout=self._timeout,
            )

    def _identity(self, name: str, uid: str, resource_version: str) -> dict[str, str]:
        # With them, the API server answers 409 if the object is another one or has changed.
        return {
            "name": name,
            "namespace": self._place.namespace,
            "uid": uid,
            "resourceVersion": resource_version,
        }


def _last_seen(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime")
    return datetime.fromisoformat(text or event["metadata"]["creationTimestamp"])


@contextmanager
def _explained(deed: str) -> Iterator[None]:
    """Turn what the client raises into a ClusterError that says what could not be done."""
    try:
        yield
    except client.ApiException as error:
        kind = _ERRORS.get(error.status or 0, ClusterError)
        raise kind(f"cannot {deed}: {_answer(error)}", _retry_after(error)) from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise ClusterError(f"cannot {deed}: the API server does not answer: {error!r}") from error


def _answer(error: client.ApiException) -> str:
    # The body is a Status object whose message names the account and the missing right.
    return f"{error.status} {error.reason}: {(error.body or '').strip()[:500]}"


def _retry_after(error: client.ApiException) -> float:
    try:
        return float((error.headers or {}).get("Retry-After", 0))
    except ValueError:
        # A date; the usual pause will do.
        return 0.0
