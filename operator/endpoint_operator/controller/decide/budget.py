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
    """Return `selected` within `limit` bytes; what has no room keeps its entry of `live`, if there is one."""
    fitting = dict(selected)
    room = limit - sum(
        min(_size(live[name]), _size(each.entry))
        for name, each in selected.items()
        if name in live and each.entry is not None
    )
    for endpoint in sorted(endpoints, key=lambda each: (each.name not in live, each.created, each.name)):
        chosen = selected[endpoint.name]
        kept = live.get(endpoint.name) if endpoint.owns_entry else None
        if chosen.entry is None:
            continue
        needed = _size(chosen.entry) - (min(_size(kept), _size(chosen.entry)) if kept else 0)
        if needed <= max(room, 0):
            room -= needed
            continue
        message = (
            f"The Serve config has {max(room, 0)} of {limit} bytes left, and the endpoint needs {needed}."
        )
        fitting[endpoint.name] = replace(chosen, entry=kept, reason=Reason.SERVE_CONFIG_FULL, message=message)
    return fitting


def _size(entry: str) -> int:
    return len(entry) + _SEPARATOR_BYTES
