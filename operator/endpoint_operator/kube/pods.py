"""Requests about pods and what they mount; of Secrets and ConfigMaps, only the metadata is ever read."""

from typing import Any, Final, cast

from kubernetes.aio import client

from endpoint_operator.kube.errors import NotFoundError, api_errors
from endpoint_operator.kube.gate import WriteGate

_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MERGE: Final = "application/merge-patch+json"


class PodsClient:
    """The pods of one namespace; writes pass the gate, and each request takes at most `timeout` seconds."""

    def __init__(
        self, objects: client.CustomObjectsApi, namespace: str, timeout: float, gate: WriteGate
    ) -> None:
        self._api = objects.api_client
        self._namespace = namespace
        self._timeout = timeout
        self._gate = gate

    async def version_of(self, plural: str, name: str) -> str:
        """Return the resource version of the Secret or ConfigMap `name`; empty if it does not exist."""
        with api_errors(f"read the metadata of {plural}/{name}"):
            try:
                found = await self._call("GET", plural, name, accept=_METADATA)
            except client.ApiException as error:
                if error.status == 404:
                    return ""
                raise
        return str(found["metadata"]["resourceVersion"])

    async def names(self, selector: str) -> list[str]:
        """Return the names of the pods that have the labels of `selector` and have not ended."""
        with api_errors(f"list pods of namespace {self._namespace!r}"):
            found = await self._call(
                "GET",
                "pods",
                accept=_METADATA_LIST,
                query=[
                    ("labelSelector", selector),
                    ("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed"),
                ],
            )
        return [str(pod["metadata"]["name"]) for pod in found["items"]]

    async def annotate(self, name: str, annotation: str, value: str) -> None:
        """Give the pod an annotation; a pod that is gone is left alone."""
        body = {"metadata": {"annotations": {annotation: value}}}
        try:
            with api_errors(f"annotate the pod {name!r}"):
                async with self._gate.write():
                    await self._call("PATCH", "pods", name, accept=_METADATA, body=body)
        except NotFoundError:
            return

    async def _call(
        self,
        method: str,
        plural: str,
        name: str = "",
        *,
        accept: str,
        query: list[tuple[str, str]] | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        headers = {"Accept": accept} | ({"Content-Type": _MERGE} if body is not None else {})
        request = await self._api.param_serialize(
            method=method,
            resource_path="/api/v1/namespaces/{namespace}/{plural}" + ("/{name}" if name else ""),
            path_params={"namespace": self._namespace, "plural": plural, **({"name": name} if name else {})},
            query_params=query or [],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(*request, _request_timeout=self._timeout)
        await answer.read()
        types = {"200": "object"}
        return cast(
            dict[str, Any],
            self._api.response_deserialize(response_data=answer, response_types_map=types).data,
        )
