"""Parse a ModelEndpoint as the API server stores it, even if its spec is invalid; pure."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic import ValidationError

from endpoint_operator.api.profiles import ProfileNotFoundError, Profiles, UnfitResourcesError
from endpoint_operator.api.sources import ANY_SOURCE, SourceNotAllowedError, Sources
from endpoint_operator.api.status import ConditionType, GoodVersion, ModelEndpointStatus, Reason, parse_status
from endpoint_operator.api.types import ModelEndpoint, parse_endpoint
from endpoint_operator.api.validation import describe
from endpoint_operator.serveconfig.compiler import EntryTooLargeError, compile_entry
from endpoint_operator.serveconfig.document import own_entry

LONGEST_PROBLEM: Final = 900


@dataclass(frozen=True)
class ObservedEndpoint:
    """One ModelEndpoint of the cluster; `endpoint` is None if the spec is invalid, and `problem` says why."""

    name: str
    uid: str
    resource_version: str
    generation: int
    created: str
    deleting: bool
    # The RayService that is to serve it; empty for the namespace's default.
    runtime: str
    endpoint: ModelEndpoint | None
    problem: str
    # The traceback of an error of the operator's own in the parsing of the spec; empty if there was none.
    error: str
    status: ModelEndpointStatus
    # Where models may come from; a version from elsewhere does not count as one that may be served again.
    sources: Sources = ANY_SOURCE

    @property
    def suspended(self) -> bool:
        """Whether the spec says `suspend: true`."""
        return self.endpoint is not None and self.endpoint.spec.suspend

    @cached_property
    def last_good_entry(self) -> str | None:
        """The entry of the last version that ran; None if there is none, or if it was edited."""
        return self._own(self.status.last_good)

    @cached_property
    def previous_good_entry(self) -> str | None:
        """The entry of the version that had run before the last one; None as above."""
        return self._own(self.status.previous_good)

    def has_run(self, entry: str) -> bool:
        """Whether `entry` is one of the two versions that are known to have run."""
        return entry in (self.last_good_entry, self.previous_good_entry)

    @property
    def stored_reason(self) -> str:
        """The stored reason of its state for the current generation; empty if there is none."""
        state = self.status.condition(ConditionType.RECONCILING)
        return state.reason if state and state.observed_generation == self.generation else ""

    @property
    def owns_entry(self) -> bool:
        """Whether the entry of its name was made for this object, not for an earlier one of the same name."""
        return self.status.application == self.name

    def _own(self, version: GoodVersion | None) -> str | None:
        return self.own(version.application) if version else None

    def own(self, entry: str) -> str | None:
        """Return `entry` if it could have been written for this endpoint, and its model may be served."""
        return own_entry(entry, self.name, self.sources)


@dataclass(frozen=True)
class CompiledEndpoint:
    """The entry that an endpoint's spec describes; without one, `reason` and `problem` say why."""

    entry: str | None
    reason: Reason | None = None
    problem: str = ""


def compile_endpoint(observed: ObservedEndpoint, profiles: Profiles) -> CompiledEndpoint:
    """Compile the spec of `observed` into its entry of the Serve config."""
    if observed.endpoint is None:
        reason = Reason.INTERNAL_ERROR if observed.error else Reason.INVALID_SPEC
        return CompiledEndpoint(None, reason, observed.problem)
    try:
        return CompiledEndpoint(compile_entry(observed.endpoint, profiles))
    except SourceNotAllowedError as error:
        return CompiledEndpoint(None, Reason.SOURCE_NOT_ALLOWED, str(error))
    except ProfileNotFoundError as error:
        return CompiledEndpoint(None, Reason.PROFILE_NOT_FOUND, str(error))
    except UnfitResourcesError as error:
        return CompiledEndpoint(None, Reason.EXCEEDS_PROFILE, str(error))
    except EntryTooLargeError as error:
        return CompiledEndpoint(None, Reason.INVALID_SPEC, str(error))


def internal_error(error: Exception) -> str:
    """Return the message of a reason InternalError."""
    return f"The operator has met an error of its own: {type(error).__name__}: {error}"[:LONGEST_PROBLEM]


def parse_observed(manifest: Mapping[str, Any]) -> ObservedEndpoint:
    """Parse an object that the API server returned; an error in its spec becomes its `problem`."""
    metadata, spec = manifest["metadata"], manifest.get("spec")
    endpoint, problem, trace = None, "", ""
    try:
        endpoint = parse_endpoint(manifest)
    except ValidationError as error:
        problem = "; ".join(str(found) for found in describe(error, ModelEndpoint))
    except Exception as error:
        problem, trace = internal_error(error), traceback.format_exc()
    runtime = spec.get("runtime", "") if isinstance(spec, dict) else ""
    return ObservedEndpoint(
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp", ""),
        deleting="deletionTimestamp" in metadata,
        runtime=runtime if isinstance(runtime, str) else "",
        endpoint=endpoint,
        problem=problem,
        error=trace,
        status=parse_status(manifest.get("status")),
    )
