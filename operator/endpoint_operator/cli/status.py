"""What `modelendpoint status` shows of a ModelEndpoint that was read from a cluster; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from endpoint_operator.api.status import Condition, ConditionType, parse_status

HEADER: Final = ("NAME", "READY", "REASON", "TASK", "PROFILE", "REPLICAS", "ERROR")

_UNSEEN: Final = "the operator has not seen this version yet"


@dataclass(frozen=True)
class EndpointRow:
    """One line; empty and None stand for what nobody has told."""

    name: str
    ready: str
    reason: str
    task: str
    profile: str
    replicas: int | None
    ready_replicas: int | None
    error: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The line under HEADER."""
        known = self.replicas is not None and self.ready_replicas is not None
        replicas = f"{self.ready_replicas}/{self.replicas}" if known else "-"
        cells = (self.name, self.ready, self.reason, self.task, self.profile, replicas)
        # An error may have lines of its own.
        return (*(cell or "-" for cell in cells), " ".join(self.error.split()))

    def to_json(self) -> dict[str, Any]:
        """Return the line as a JSON object, in the words of the resource."""
        members = asdict(self)
        return members | {"readyReplicas": members.pop("ready_replicas")}


def endpoint_rows(manifests: Iterable[Mapping[str, Any]]) -> list[EndpointRow]:
    """Return a line for each decoded ModelEndpoint, by name."""
    return sorted((_row(manifest) for manifest in manifests), key=lambda row: row.name)


def _row(manifest: Mapping[str, Any]) -> EndpointRow:
    metadata, spec = manifest["metadata"], manifest.get("spec", {})
    status = parse_status(manifest.get("status"))
    ready = next((found for found in status.conditions if found.type is ConditionType.READY), None)
    seen = ready is not None and status.observed_generation >= metadata.get("generation", 0)
    return EndpointRow(
        name=metadata["name"],
        ready=ready.status if ready and seen else "Unknown",
        reason=ready.reason if ready and seen else "",
        task=spec.get("model", {}).get("task", ""),
        profile=spec.get("resources", {}).get("profile", ""),
        replicas=status.replicas,
        ready_replicas=status.ready_replicas,
        error=_error(ready, status.last_error) if seen else _UNSEEN,
    )


def _error(ready: Condition | None, last_error: str) -> str:
    if last_error or ready is None or ready.status == "True":
        return last_error
    return ready.message
