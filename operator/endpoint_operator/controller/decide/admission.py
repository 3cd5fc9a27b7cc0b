"""Decide which entry of the Serve config each endpoint gets, and why if not that of its spec; pure.

No decision looks at another endpoint, except that newcomers need room in the document.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from endpoint_operator.api.profiles import Catalogue, ProfileNotFoundError, UnfitResourcesError
from endpoint_operator.api.status import Reason
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.serveconfig.compiler import compile_application
from endpoint_operator.serveconfig.document import fingerprint, own_entry, to_entry

# Between two entries.
_SEPARATOR_BYTES: Final = 1


@dataclass(frozen=True)
class Wanted:
    """The entry that an endpoint's spec describes; None if it describes none, and why."""

    entry: str | None
    reason: Reason | None = None
    problem: str = ""


@dataclass(frozen=True)
class Admission:
    """The entry that an endpoint gets; `reason` is None if it is the one that its spec describes."""

    entry: str | None
    reason: Reason | None = None
    message: str = ""


@dataclass(frozen=True)
class Gates:
    """What keeps entries out that are valid by themselves."""

    # Whether models may be in the document at all.
    models: bool
    # By endpoint: the entry that Ray may have refused the whole document for.
    suspects: Mapping[str, str] = field(default_factory=dict)
    # By endpoint: the entry of the last document that Ray has taken.
    taken: Mapping[str, str] = field(default_factory=dict)


def compile_wanted(observed: ObservedEndpoint, catalogue: Catalogue) -> Wanted:
    """Return the entry that the spec of `observed` describes."""
    if observed.endpoint is None:
        return Wanted(None, Reason.INVALID_SPEC, observed.problem)
    try:
        return Wanted(to_entry(compile_application(observed.endpoint, catalogue)))
    except ProfileNotFoundError as error:
        return Wanted(None, Reason.PROFILE_NOT_FOUND, str(error))
    except UnfitResourcesError as error:
        return Wanted(None, Reason.EXCEEDS_PROFILE, str(error))


def admit(observed: ObservedEndpoint, wanted: Wanted, live: str | None, gates: Gates) -> Admission:
    """Return what `observed` gets, given the entry that the live document has under its name."""
    if observed.suspended or observed.deleting:
        return Admission(None, Reason.SUSPENDED, "spec.suspend is true.")
    if wanted.entry is None:
        assert wanted.reason is not None
        kept = own_entry(live, observed.name) if live is not None and observed.was_served else None
        return Admission(_first_good(observed, kept, observed.good_entry), wanted.reason, wanted.problem)
    refused = observed.status.refused
    if refused is not None and refused.fingerprint == fingerprint(wanted.entry):
        kept = _first_good(observed, observed.good_entry)
        return Admission(kept, _reason_of_refusal(refused.reason, kept), refused.message)
    if not gates.models:
        return Admission(
            None, Reason.WAITING_FOR_GATEWAY, "The RayService has to run once before models follow."
        )
    if gates.suspects.get(observed.name) == wanted.entry:
        kept = _first_good(observed, gates.taken.get(observed.name), observed.good_entry)
        return Admission(
            kept if kept != wanted.entry else None,
            Reason.QUARANTINED,
            "Ray did not accept a Serve config with several new versions, this one among them; they are "
            "tried again in smaller groups.",
        )
    return Admission(wanted.entry)


def _reason_of_refusal(stored: str, kept: str | None) -> Reason:
    if stored == Reason.REJECTED_BY_RAY:
        return Reason.REJECTED_BY_RAY
    return Reason.WITHDRAWN if kept is None else Reason.ROLLED_BACK


def _first_good(observed: ObservedEndpoint, *candidates: str | None) -> str | None:
    """Return the first candidate that was not refused."""
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
    """Return `admissions` within `limit` bytes: what is served stays, of the others the oldest come first."""
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
