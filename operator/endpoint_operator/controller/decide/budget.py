"""Keep the Serve config within the size of one Kubernetes object; pure.

What is served stays, then what is served grows, and then the oldest of the newcomers come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from endpoint_operator.api.status import Reason
from endpoint_operator.controller.decide.selection import SelectedVersion
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint

# The comma between two entries.
_SEPARATOR_BYTES = 1


def apply_size_budget(
    endpoints: Sequence[ObservedEndpoint],
    selected: Mapping[str, SelectedVersion],
    live: Mapping[str, str],
    limit: int,
) -> dict[str, SelectedVersion]:
    """Return `selected` within `limit` bytes; what has no room keeps the entry that it has, if it has one."""
    fitting = dict(selected)
    incumbents = {each.name: _incumbent(each, live) for each in endpoints}
    room = limit - sum(
        min(_size(incumbent), _size(chosen.entry))
        for name, chosen in selected.items()
        if chosen.entry is not None and (incumbent := incumbents[name]) is not None
    )
    for endpoint in sorted(
        endpoints, key=lambda each: (incumbents[each.name] is None, each.created, each.name)
    ):
        chosen, kept = selected[endpoint.name], incumbents[endpoint.name]
        if chosen.entry is None:
            continue
        needed = _size(chosen.entry) - (min(_size(kept), _size(chosen.entry)) if kept else 0)
        if needed <= max(room, 0):
            room -= needed
            continue
        message = (
            f"The Serve config has {max(room, 0)} of {limit} bytes left, and the endpoint needs {needed}."
        )
        kept = kept and endpoint.own(kept)
        fitting[endpoint.name] = replace(chosen, entry=kept, reason=Reason.SERVE_CONFIG_FULL, message=message)
    return fitting


def _incumbent(endpoint: ObservedEndpoint, live: Mapping[str, str]) -> str | None:
    """Return the entry whose room is the endpoint's already: also that of a good version that is away now."""
    if endpoint.name in live and endpoint.owns_entry:
        return live[endpoint.name]
    return endpoint.last_good_entry


def _size(entry: str) -> int:
    return len(entry.encode()) + _SEPARATOR_BYTES
