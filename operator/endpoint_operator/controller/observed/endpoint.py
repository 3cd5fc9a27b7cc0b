"""Parse a ModelEndpoint as the API server stores it, even if its spec is invalid; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from endpoint_operator.api.status import ConditionType, ModelEndpointStatus, parse_status
from endpoint_operator.api.types import ModelEndpoint, parse_endpoint
from endpoint_operator.api.validation import describe
from endpoint_operator.serveconfig.document import own_entry


@dataclass(frozen=True)
class ObservedEndpoint:
    """One ModelEndpoint of the cluster; `endpoint` is None if the spec is invalid, and `problem` says why."""

    name: str
    uid: str
    resource_version: str
    generation: int
    created: str
    deleting: bool
    endpoint: ModelEndpoint | None
    problem: str
    status: ModelEndpointStatus
    # The status as it is stored, to tell whether another one has to be written.
    stored_status: Mapping[str, Any]

    @property
    def suspended(self) -> bool:
        """Whether the spec says `suspend: true`."""
        return self.endpoint is not None and self.endpoint.spec.suspend

    @cached_property
    def last_good_entry(self) -> str | None:
        """The entry of the last version that ran; None if there is none, or if it was edited."""
        last = self.status.last_good
        return own_entry(last.application, self.name) if last else None

    @property
    def stored_reason(self) -> str:
        """The stored reason of Ready for the current generation; empty if there is none."""
        ready = self.status.condition(ConditionType.READY)
        return ready.reason if ready and ready.observed_generation == self.generation else ""

    @property
    def owns_entry(self) -> bool:
        """Whether the entry of its name was made for this object, not for an earlier one of the same name."""
        return self.status.application == self.name


def parse_observed(manifest: Mapping[str, Any]) -> ObservedEndpoint:
    """Parse an object that the API server returned."""
    metadata = manifest["metadata"]
    endpoint, problem = None, ""
    try:
        endpoint = parse_endpoint(manifest)
    except ValidationError as error:
        problem = "; ".join(str(found) for found in describe(error, ModelEndpoint))
    return ObservedEndpoint(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp", ""),
        deleting="deletionTimestamp" in metadata,
        endpoint=endpoint,
        problem=problem,
        status=parse_status(manifest.get("status")),
        stored_status=manifest.get("status") or {},
    )
