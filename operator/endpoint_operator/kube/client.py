"""All requests of the operator process to the Kubernetes API: objects in, objects out, nothing is decided.

Each request has a time limit, is tried once, and raises KubeError with a sentence for people. A write also
has to pass the gate. kopf's watches, which handlers.py registers, are the only other connection.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from kubernetes.aio import client, config

from endpoint_operator.api.json_text import to_json
from endpoint_operator.kube.errors import KubeError, NotFoundError, api_errors
from endpoint_operator.kube.gate import WriteGate
from endpoint_operator.kube.kinds import MODEL_ENDPOINT, RAY_SERVICE, Kind
from endpoint_operator.kube.lease import LeaseClient
from endpoint_operator.kube.pods import PodsClient

FIELD_MANAGER: Final = "model-endpoints-operator"
PAGE_SIZE: Final = 500

# With a charset, the client takes a text as the body; it would escape surrogate pairs in anything else.
_APPLY: Final = "application/apply-patch+yaml; charset=utf-8"
_EVENTS: Final = ("events.k8s.io", "v1")

# The reason of KubeRay's event when it cannot give Ray a Serve config (rayservice_controller.go).
_UPDATE_FAILED: Final = "FailedToUpdateServeApplications"


@dataclass(frozen=True)
class Scope:
    """The namespace and the RayService that the operator works on."""

    namespace: str
    ray_service: str


@asynccontextmanager
async def connect(scope: Scope, timeout: float, gate: WriteGate) -> AsyncIterator["KubeClient"]:
    """Yield a client that uses the pod's service account or, outside a pod, the kubeconfig.

    It writes while `gate` is open.
    """
    configuration = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise KubeError(f"there is neither a pod's account nor a kubeconfig: {error}") from error
    async with client.ApiClient(configuration) as connection:
        yield KubeClient(client.CustomObjectsApi(connection), scope, timeout, gate)


async def list_objects(
    objects: client.CustomObjectsApi, kind: Kind, namespace: str, timeout: float
) -> list[dict[str, Any]]:
    """Return all objects of `kind`, read page by page; raise KubeError unless every page was read."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        with api_errors(f"list {kind.plural}.{kind.group} of namespace {namespace!r}"):
            page = await objects.list_namespaced_custom_object(
                kind.group,
                kind.version,
                namespace,
                kind.plural,
                limit=PAGE_SIZE,
                _continue=token,
                _request_timeout=timeout,
            )
        listed = cast(dict[str, Any], page)
        found += listed["items"]
        token = listed["metadata"].get("continue", "")
        if not token:
            return found


class KubeClient:
    """The objects of one scope."""

    def __init__(
        self, objects: client.CustomObjectsApi, scope: Scope, timeout: float, gate: WriteGate
    ) -> None:
        self._objects = objects
        self._scope = scope
        self._timeout = timeout
        self._gate = gate

    def lease(self, name: str, timeout: float) -> LeaseClient:
        """Return the requests for a Lease of the RayService; each takes at most `timeout` seconds."""
        return LeaseClient(self._objects, self._scope.namespace, name, timeout, self.get_ray_service)

    def pods(self) -> PodsClient:
        """Return the requests about the pods of the namespace."""
        return PodsClient(self._objects, self._scope.namespace, self._timeout, self._gate)

    async def check_access(self) -> None:
        """Raise KubeError unless both kinds exist and may be read."""
        for kind in (MODEL_ENDPOINT, RAY_SERVICE):
            with api_errors(f"list {kind.plural}.{kind.group} of namespace {self._scope.namespace!r}"):
                await self._objects.list_namespaced_custom_object(
                    kind.group,
                    kind.version,
                    self._scope.namespace,
                    kind.plural,
                    limit=1,
                    _request_timeout=self._timeout,
                )

    async def list_endpoints(self) -> list[dict[str, Any]]:
        found = await list_objects(self._objects, MODEL_ENDPOINT, self._scope.namespace, self._timeout)
        # The items of a list do not say what kind they are of.
        kind = {"apiVersion": MODEL_ENDPOINT.api_version, "kind": MODEL_ENDPOINT.kind}
        return [kind | item for item in found]

    async def has_endpoint(self, name: str) -> bool:
        """Return whether the ModelEndpoint exists and is not being deleted."""
        found = await self._get(MODEL_ENDPOINT, name)
        return found is not None and "deletionTimestamp" not in found["metadata"]

    async def get_ray_service(self) -> dict[str, Any] | None:
        """Return the RayService; None if it does not exist."""
        return await self._get(RAY_SERVICE, self._scope.ray_service)

    async def is_crd_terminating(self) -> bool:
        """Return whether the CustomResourceDefinition of ModelEndpoint is being deleted.

        The API server then deletes its objects one by one, and its discovery no longer offers `create`
        (apiextensions-apiserver, customresource_discovery_controller.go).
        """
        kind = MODEL_ENDPOINT
        with api_errors(f"look up what can be done with {kind.plural}.{kind.group}"):
            found = await self._objects.get_api_resources(
                kind.group, kind.version, _request_timeout=self._timeout
            )
        return not any(
            resource.name == kind.plural and "create" in resource.verbs for resource in found.resources
        )

    async def apply_serve_config(self, uid: str, resource_version: str, document: str) -> dict[str, Any]:
        """Write `document` into the RayService and return the object; ConflictError if it has changed."""
        name = self._scope.ray_service
        with api_errors(f"write the Serve config of the RayService {name!r}"):
            body = self._patch(RAY_SERVICE, name, uid, resource_version, spec={"serveConfigV2": document})
            return await self._apply(RAY_SERVICE, name, body)

    async def apply_status(
        self, name: str, uid: str, resource_version: str, status: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the status of the ModelEndpoint and return the object; ConflictError if it has changed."""
        with api_errors(f"write the status of the ModelEndpoint {name!r}"):
            body = self._patch(MODEL_ENDPOINT, name, uid, resource_version, status=status)
            return await self._apply(MODEL_ENDPOINT, name, body, "/status")

    async def update_failures(self, ray_service_uid: str, since: datetime) -> list[str]:
        """Return the notes of KubeRay's events since `since` that it could not give Ray a Serve config."""
        with api_errors("list events"):
            listed = await self._objects.list_namespaced_custom_object(
                *_EVENTS,
                self._scope.namespace,
                "events",
                field_selector=f"regarding.uid={ray_service_uid},reason={_UPDATE_FAILED}",
                _request_timeout=self._timeout,
            )
        events = cast(dict[str, Any], listed)["items"]
        return [event.get("note", "") for event in events if _last_seen(event) > since]

    async def create_event(self, event: Mapping[str, Any]) -> None:
        """Create an event; `event` is an object of events.k8s.io/v1."""
        with api_errors("create an event"):
            async with self._gate.write():
                await self._objects.create_namespaced_custom_object(
                    *_EVENTS, self._scope.namespace, "events", dict(event), _request_timeout=self._timeout
                )

    async def _get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        try:
            with api_errors(f"read the {kind.kind} {name!r}"):
                found = await self._objects.get_namespaced_custom_object(
                    kind.group,
                    kind.version,
                    self._scope.namespace,
                    kind.plural,
                    name,
                    _request_timeout=self._timeout,
                )
        except NotFoundError:
            return None
        return cast(dict[str, Any], found)

    async def _apply(self, kind: Kind, name: str, body: str, subresource: str = "") -> dict[str, Any]:
        """Apply `body` and return the object as it is stored.

        The client's own methods take no text, and escape what they are given.
        """
        api = self._objects.api_client
        request = await api.param_serialize(
            method="PATCH",
            resource_path="/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}" + subresource,
            path_params={
                "group": kind.group,
                "version": kind.version,
                "namespace": self._scope.namespace,
                "plural": kind.plural,
                "name": name,
            },
            query_params=[("fieldManager", FIELD_MANAGER), ("force", "true")],
            header_params={"Accept": "application/json", "Content-Type": _APPLY},
            body=body,
            auth_settings=["BearerToken"],
        )
        async with self._gate.write():
            answer = await api.call_api(*request, _request_timeout=self._timeout)
            await answer.read()
        types = {"200": "object", "201": "object"}
        stored = api.response_deserialize(response_data=answer, response_types_map=types).data
        return cast(dict[str, Any], stored)

    def _patch(self, kind: Kind, name: str, uid: str, resource_version: str, **part: Any) -> str:
        """Return the body of an apply as text, in which every YAML parser reads every character."""
        # With uid and resourceVersion, the API server answers 409 if the object has changed or is another
        # one.
        metadata = {"namespace": self._scope.namespace, "uid": uid, "resourceVersion": resource_version}
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name} | metadata}
        return to_json(whole | part)


def _last_seen(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime")
    return datetime.fromisoformat(text or event["metadata"]["creationTimestamp"])
