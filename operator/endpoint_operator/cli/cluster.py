"""What `plan` and `status` ask a cluster for; imported only then, because it needs the Kubernetes client."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from endpoint_operator.api.runtime import belongs
from endpoint_operator.api.status import parse_status
from endpoint_operator.cli.plan import Place, Served
from endpoint_operator.cli.status import EndpointRow, endpoint_rows
from endpoint_operator.kube.errors import KubeError
from endpoint_operator.kube.reader import KubeReader, RayServiceView, connect_reader
from endpoint_operator.serveconfig.document import read_entries

# `status --watch` asks again after each pause.
PAUSE_SECONDS: Final = 2.0

Rows = list[EndpointRow]


@dataclass(frozen=True)
class ProfilesText:
    """The text of a profiles file, and where it is from."""

    source: str
    text: str


async def read_served(
    context: str | None, namespace: str | None, ray_service: str | None, *, with_profiles: bool
) -> tuple[Served, ProfilesText | None]:
    """Return what the RayService serves and, `with_profiles`, the profiles file that its chart made."""
    async with connect_reader(context, namespace) as reader:
        service = await reader.ray_service(ray_service)
        statuses = {
            manifest["metadata"]["name"]: parse_status(manifest.get("status"))
            for manifest in await reader.endpoints()
            if _belongs(manifest, service)
        }
        served = Served(
            entries=read_entries(service.serve_config),
            rollouts={name: status.rollout for name, status in statuses.items() if status.rollout},
            place=Place(reader.namespace, service.name, service.is_default),
        )
        if not with_profiles:
            return served, None
        source = f"the ConfigMap {service.name}-profiles"
        return served, ProfilesText(source, await reader.profiles(service.name))


async def read_ray_service(
    context: str | None, namespace: str | None, ray_service: str | None
) -> RayServiceView:
    """Return the RayService that `read_served` would read."""
    async with connect_reader(context, namespace) as reader:
        return await reader.ray_service(ray_service)


async def show_rows(
    context: str | None,
    namespace: str | None,
    ray_service: str | None,
    show: Callable[[str, Rows], None],
    complain: Callable[[str], None] | None,
) -> None:
    """Call `show` with the namespace and the rows of its endpoints, or of those of one RayService.

    With `complain`, go on for ever: `show` is called again when the rows have changed, and `complain` when
    the cluster does not answer.
    """
    async with connect_reader(context, namespace) as reader:
        rows = await _rows(reader, ray_service)
        show(reader.namespace, rows)
        error = ""
        while complain is not None:
            await asyncio.sleep(PAUSE_SECONDS)
            last_rows, last_error = rows, error
            try:
                rows, error = await _rows(reader, ray_service), ""
            except KubeError as raised:
                error = str(raised)
            if error and error != last_error:
                complain(error)
            elif rows != last_rows or (last_error and not error):
                show(reader.namespace, rows)


async def read_endpoints(
    context: str | None, namespace: str | None, ray_service: str | None
) -> tuple[str, list[dict[str, Any]]]:
    """Return the namespace and its decoded endpoints, or those of one RayService."""
    async with connect_reader(context, namespace) as reader:
        return reader.namespace, await _endpoints(reader, ray_service)


async def _rows(reader: KubeReader, ray_service: str | None) -> Rows:
    return endpoint_rows(await _endpoints(reader, ray_service))


async def _endpoints(reader: KubeReader, ray_service: str | None) -> list[dict[str, Any]]:
    manifests = await reader.endpoints()
    if ray_service is None:
        return manifests
    service = await reader.ray_service(ray_service)
    return [manifest for manifest in manifests if _belongs(manifest, service)]


def _belongs(manifest: Mapping[str, Any], service: RayServiceView) -> bool:
    runtime = manifest.get("spec", {}).get("runtime", "")
    return belongs(runtime, service.name, is_default=service.is_default)
