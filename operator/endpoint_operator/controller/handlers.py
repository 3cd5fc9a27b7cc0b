"""kopf's watches, wired to the reconciler; nothing is decided here.

Only events: no finalizers, no annotations, no timers, so that nothing of ours holds on to an object.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

import kopf

from endpoint_operator.api import types as api
from endpoint_operator.controller.observed import rayservice as ray_service
from endpoint_operator.controller.reconciler import Reconciler

registry: Final = kopf.OperatorRegistry()

_ENDPOINTS: Final = (api.GROUP, api.VERSION, api.PLURAL)
_RAY_SERVICES: Final = (ray_service.GROUP, ray_service.VERSION, ray_service.PLURAL)


class _Backoffs:
    """Pauses between attempts, without an end: an API server that is away must not end the operator."""

    def __iter__(self) -> Iterator[float]:
        return chain((0.5, 1, 2, 3), repeat(5))


@dataclass(frozen=True)
class Memo:
    """What handlers are given; kopf copies it for each object, so that it only leads to what is shared."""

    reconciler: Reconciler


@kopf.on.login(registry=registry)
async def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Use the account of the pod, or the kubeconfig on a person's machine."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


@kopf.on.startup(registry=registry)
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Set kopf up to watch two kinds and to do nothing else."""
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _Backoffs()
    settings.persistence.finalizer = f"{api.GROUP}/finalizer"
    settings.process.ultimate_exiting_timeout = 20


@kopf.on.event(*_ENDPOINTS, registry=registry)
async def observe_endpoint(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    """Report that a ModelEndpoint changed."""
    metadata = event["object"]["metadata"]
    if event["type"] == "DELETED":
        memo.reconciler.endpoint_deleted()
    else:
        memo.reconciler.endpoint_changed(metadata["name"], metadata["resourceVersion"])


@kopf.on.event(*_RAY_SERVICES, registry=registry)
async def observe_ray_service(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    """Report that a RayService changed."""
    metadata = event["object"]["metadata"]
    memo.reconciler.service_changed(metadata["name"], metadata["resourceVersion"])
