"""kopf's watches: each event triggers the reconciler, and nothing is decided here.

There are only handlers of events. Without finalizers, annotations and timers, the operator never keeps an
object from being deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final

import kopf

from endpoint_operator.controller.loop import Reconciler
from endpoint_operator.kube.kinds import MODEL_ENDPOINT, RAY_SERVICE

registry: Final = kopf.OperatorRegistry()

_ENDPOINTS: Final = (MODEL_ENDPOINT.group, MODEL_ENDPOINT.version, MODEL_ENDPOINT.plural)
_RAY_SERVICES: Final = (RAY_SERVICE.group, RAY_SERVICE.version, RAY_SERVICE.plural)


class _Backoffs:
    """Endless pauses between attempts, because an unreachable API server must not end the operator."""

    def __iter__(self) -> Iterator[float]:
        return chain((0.5, 1, 2, 3), repeat(5))


@dataclass(frozen=True)
class Memo:
    """What kopf hands to the handlers; it is copied for each object, so it holds only a reference."""

    reconciler: Reconciler


@kopf.on.login(registry=registry)
async def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Use the pod's service account or, outside a pod, the kubeconfig."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


@kopf.on.startup(registry=registry)
async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Make kopf watch two kinds and do nothing else."""
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
    settings.persistence.finalizer = f"{MODEL_ENDPOINT.group}/finalizer"
    settings.process.ultimate_exiting_timeout = 20


@kopf.on.event(*_ENDPOINTS, registry=registry)
async def observe_endpoint(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    metadata = event["object"]["metadata"]
    if event["type"] == "DELETED":
        memo.reconciler.endpoint_deleted()
    else:
        memo.reconciler.endpoint_changed(metadata["name"], metadata["resourceVersion"])


@kopf.on.event(*_RAY_SERVICES, registry=registry)
async def observe_ray_service(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    metadata = event["object"]["metadata"]
    memo.reconciler.service_changed(metadata["name"], metadata["resourceVersion"])
