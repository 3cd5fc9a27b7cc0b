"""What replicas have used, in Ray's own key-value store: one small value for each replica.

The store is in Ray's head, or wherever the head keeps its state. So it outlives replicas, and the head as far
as that state does.
"""

from typing import Final, Protocol

from pydantic import ValidationError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from serve_app.contract import UsageMinute, UsagePart

HISTORY_SECONDS: Final = 7200

_NAMESPACE: Final = "model-endpoints-usage"


class ReplicaUsage(UsagePart):
    """The minutes of one replica, and when it wrote them, in seconds since 1970.

    Nothing is added to minutes that have ended by then. `ending` says that it has been asked to stop.
    """

    written: float
    minutes: list[UsageMinute]
    ending: bool = False


class UsageStore(Protocol):
    """The values of all replicas by key. Each call may block."""

    def put(self, key: str, value: bytes) -> None: ...

    def items(self) -> dict[str, bytes]: ...

    def remove(self, key: str) -> None: ...


class RayUsageStore:
    """The store of the Ray cluster that this process is a worker of."""

    def put(self, key: str, value: bytes) -> None:
        _internal_kv_put(key, value, overwrite=True, namespace=_NAMESPACE)

    def items(self) -> dict[str, bytes]:
        keys = [key.decode() for key in _internal_kv_list("", namespace=_NAMESPACE)]
        values = {key: _internal_kv_get(key, namespace=_NAMESPACE) for key in keys}
        # Somebody else may have removed one meanwhile.
        return {key: value for key, value in values.items() if value is not None}

    def remove(self, key: str) -> None:
        _internal_kv_del(key, namespace=_NAMESPACE)


def usage_key(application: str, replica: str) -> str:
    return f"{application}/{replica}"


def application_of(key: str) -> str:
    return key.partition("/")[0]


def to_value(usage: ReplicaUsage) -> bytes:
    return usage.model_dump_json(exclude_defaults=True).encode()


def parse_value(value: bytes) -> ReplicaUsage | None:
    """Return what `to_value` wrote; None for what another version wrote so that it cannot be read."""
    try:
        return ReplicaUsage.model_validate_json(value)
    except ValidationError:
        return None
