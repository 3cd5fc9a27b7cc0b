"""What the commands `plan` and `status` ask a live cluster for; imported only when they do."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from endpoint_operator.api.status import parse_status
from endpoint_operator.cli.plan import Served
from endpoint_operator.cli.status import EndpointRow, endpoint_rows
from endpoint_operator.kube.reader import CannotReadClusterError, LiveCluster, live_cluster
from endpoint_operator.serveconfig.document import read_entries

# Between two looks of `status --watch`.
PAUSE_SECONDS: Final = 2.0

Rows = list[EndpointRow]


@dataclass(frozen=True)
class Profiles:
    """The text of a catalogue, and where it is from."""

    source: str
    text: str


async def read_served(
    context: str | None, namespace: str | None, ray_service: str | None, *, with_profiles: bool
) -> tuple[Served, Profiles | None]:
    """Return what the RayService serves, and if asked for, the catalogue that its chart made."""
    async with live_cluster(context, namespace) as cluster:
        service = await cluster.ray_service(ray_service)
        name = service["metadata"]["name"]
        statuses = {
            manifest["metadata"]["name"]: parse_status(manifest.get("status"))
            for manifest in await cluster.endpoints()
        }
        served = Served(
            entries=read_entries(service["spec"].get("serveConfigV2", "")),
            refused={name: status.refused for name, status in statuses.items() if status.refused},
            namespace=cluster.namespace,
        )
        if not with_profiles:
            return served, None
        return served, Profiles(f"the ConfigMap {name}-profiles", await cluster.profiles(name))


async def show_rows(
    context: str | None,
    namespace: str | None,
    show: Callable[[str, Rows], None],
    complain: Callable[[str], None] | None,
) -> None:
    """Call `show` with the namespace and its endpoints.

    With `complain`, go on and show what has changed: what fails after the first look is complained of.
    """
    async with live_cluster(context, namespace) as cluster:
        rows = await _rows(cluster)
        show(cluster.namespace, rows)
        trouble = ""
        while complain is not None:
            await asyncio.sleep(PAUSE_SECONDS)
            last, last_trouble = rows, trouble
            try:
                rows, trouble = await _rows(cluster), ""
            except CannotReadClusterError as error:
                trouble = str(error)
            if trouble and trouble != last_trouble:
                complain(trouble)
            elif rows != last or (last_trouble and not trouble):
                show(cluster.namespace, rows)


async def _rows(cluster: LiveCluster) -> Rows:
    return endpoint_rows(await cluster.endpoints())
