"""Select the entry of the Serve config for each endpoint, and the reason if it is not that of its spec; pure.

No selection depends on another endpoint, except that new endpoints need room in the Serve config.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from endpoint_operator.api.profiles import ProfileNotFoundError, Profiles, UnfitResourcesError
from endpoint_operator.api.status import Reason
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.serveconfig.compiler import compile_application
from endpoint_operator.serveconfig.document import fingerprint, own_entry, to_entry

# The comma between two entries.
_SEPARATOR_BYTES: Final = 1


@dataclass(frozen=True)
class CompiledEndpoint:
    """The entry that an endpoint's spec describes; without one, `reason` and `problem` say why."""

    entry: str | None
    reason: Reason | None = None
    problem: str = ""


@dataclass(frozen=True)
class Admission:
    """The entry that an endpoint gets; `reason` is None if it is the one that the spec describes."""

    entry: str | None
    reason: Reason | None = None
    message: str = ""


@dataclass(frozen=True)
class Holds:
    """What keeps entries out that are valid by themselves; entries are mapped by endpoint."""

    # The RayService has never run, so only the gateway may be in the Serve config.
    awaiting_gateway: bool
    # Entries because of which Ray may have rejected a whole Serve config.
    quarantined: Mapping[str, str] = field(default_factory=dict)
    # The entries of the last Serve config that Ray has accepted.
    accepted: Mapping[str, str] = field(default_factory=dict)
    # Entries that no Ray cluster serves and that the pending one does not get to run.
    left_behind: Mapping[str, str] = field(default_factory=dict)


def compile_endpoint(observed: ObservedEndpoint, profiles: Profiles) -> CompiledEndpoint:
    """Compile the spec of `observed` into its entry of the Serve config."""
    if observed.endpoint is None:
        return CompiledEndpoint(None, Reason.INVALID_SPEC, observed.problem)
    try:
        return CompiledEndpoint(to_entry(compile_application(observed.endpoint, profiles)))
    except ProfileNotFoundError as error:
        return CompiledEndpoint(None, Reason.PROFILE_NOT_FOUND, str(error))
    except UnfitResourcesError as error:
        return CompiledEndpoint(None, Reason.EXCEEDS_PROFILE, str(error))


def admit(observed: ObservedEndpoint, wanted: CompiledEndpoint, live: str | None, holds: Holds) -> Admission:
    """Select the entry for `observed`; `live` is the entry that the RayService has under its name."""
    if observed.suspended or observed.deleting:
        return Admission(None, Reason.SUSPENDED, "spec.suspend is true.")
    if wanted.entry is None:
        assert wanted.reason is not None
        kept = own_entry(live, observed.name) if live is not None and observed.owns_entry else None
        return Admission(_first_good(observed, kept, observed.last_good_entry), wanted.reason, wanted.problem)
    refused = observed.status.refused
    if refused is not None and refused.fingerprint == fingerprint(wanted.entry):
        kept = _first_good(observed, observed.last_good_entry)
        return Admission(kept, _reason_of_refusal(refused.reason, kept), refused.message)
    if holds.awaiting_gateway:
        return Admission(
            None, Reason.WAITING_FOR_GATEWAY, "The RayService has to run once before models follow."
        )
    if holds.quarantined.get(observed.name) == wanted.entry:
        kept = _first_good(observed, holds.accepted.get(observed.name), observed.last_good_entry)
        return Admission(
            kept if kept != wanted.entry else None,
            Reason.QUARANTINED,
            "Ray did not accept a Serve config with several new versions, this one among them; they are "
            "tried again in smaller groups.",
        )
    if holds.left_behind.get(observed.name) == wanted.entry:
        return Admission(
            None,
            Reason.RAY_SERVICE_UPGRADING,
            "This version did not answer before the upgrade and does not run on the new Ray cluster. It does "
            "not hold the upgrade up, and is deployed again afterwards.",
        )
    return Admission(wanted.entry)


def _reason_of_refusal(stored: str, kept: str | None) -> Reason:
    if stored == Reason.REJECTED_BY_RAY:
        return Reason.REJECTED_BY_RAY
    return Reason.WITHDRAWN if kept is None else Reason.ROLLED_BACK


def _first_good(observed: ObservedEndpoint, *candidates: str | None) -> str | None:
    """Return the first candidate that is not the version that failed."""
    refused = observed.status.refused
    for entry in candidates:
        if entry is not None and (refused is None or refused.fingerprint != fingerprint(entry)):
            return entry
    return None


def leave_out_what_has_no_room(
    observed: Sequence[ObservedEndpoint],
    admissions: Mapping[str, Admission],
    served: Collection[str],
    limit: int,
) -> dict[str, Admission]:
    """Return `admissions` within `limit` bytes: served endpoints stay, then the oldest of the others come."""
    fitting = dict(admissions)
    room = limit
    for endpoint in _by_right_of_way(observed, served):
        admission = admissions[endpoint.name]
        if admission.entry is None:
            continue
        size = len(admission.entry) + _SEPARATOR_BYTES
        if size <= room or endpoint.name in served:
            room -= size
            continue
        fitting[endpoint.name] = Admission(
            None,
            Reason.SERVE_CONFIG_FULL,
            f"The Serve config has {max(room, 0)} of {limit} bytes left, and the endpoint needs {size}.",
        )
    return fitting


def _by_right_of_way(
    observed: Sequence[ObservedEndpoint], served: Collection[str]
) -> Iterator[ObservedEndpoint]:
    yield from sorted(
        observed, key=lambda endpoint: (endpoint.name not in served, endpoint.created, endpoint.name)
    )
