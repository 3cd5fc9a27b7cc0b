"""Add what the gateway says of a model's last minutes to its endpoint's status, each minute once; pure.

`status.usage.until` says which minutes are in it. A minute is added when it is complete and not before that
time. So neither a restart nor another operator adds one again: a write fails if the object has changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from zlib import crc32

from endpoint_operator.api.status import Usage
from endpoint_operator.api.usage import with_minutes
from endpoint_operator.controller.decide.rollout import from_time
from endpoint_operator.controller.observed.endpoint import ObservedEndpoint
from endpoint_operator.controller.observed.usage import Rate, UsageView, rate_of
from serve_app.contract import MINUTE_SECONDS, UsageMinute

# Statuses that are written a minute because of their usage alone. With more endpoints, each has its turn less
# often; the gateway knows two hours.
STATUSES_A_MINUTE: Final = 200

_HOUR_SECONDS: Final = 3600


def with_usage(
    endpoint: ObservedEndpoint, view: UsageView, live: str | None, endpoints: int
) -> ObservedEndpoint:
    """Return `endpoint` with the usage that its status should have; of so many endpoints, it is one.

    `live` is the entry that the RayService has under its name.
    """
    model = view.report.models.get(endpoint.name)
    if model is None or not is_due(endpoint.name, view.report.now, endpoints):
        return endpoint
    stored = endpoint.status.usage
    begin = _begin(endpoint, stored)
    new = [
        each for each in model.minutes if begin <= each.begin and each.begin + MINUTE_SECONDS <= model.until
    ]
    if not new:
        return endpoint
    entry = live or endpoint.last_good_entry
    rate = rate_of(entry, view.profiles) if entry is not None else None
    usage = added(stored or Usage(), new, rate, model.until)
    return replace(endpoint, status=endpoint.status.model_copy(update={"usage": usage}))


def is_due(name: str, now: int, endpoints: int) -> bool:
    """Return whether the usage of `name` may be written in the minute of `now`, in seconds since 1970."""
    turns = -(-endpoints // STATUSES_A_MINUTE)
    return (crc32(name.encode()) + now // MINUTE_SECONDS) % max(1, turns) == 0


def added(before: Usage, minutes: Sequence[UsageMinute], rate: Rate | None, until: int) -> Usage:
    """Return `before` and `minutes`, of which there is one at least; all before `until` are in it then."""
    seconds = sum(minute.replica_seconds for minute in minutes)
    share = round(rate.memory_share, 4) if rate else before.memory_share
    cost = _cost(before.cost, seconds, rate)
    return with_minutes(before, minutes, until).model_copy(update={"memory_share": share, "cost": cost})


def _cost(before: float | None, seconds: float, rate: Rate | None) -> float | None:
    """Return the cost with that of so many seconds of replicas; a profile without a price adds nothing."""
    if rate is None or rate.price is None:
        return before
    return round((before or 0.0) + seconds * rate.share * rate.price / _HOUR_SECONDS, 9)


def _begin(endpoint: ObservedEndpoint, stored: Usage | None) -> float:
    """Return the time from which minutes are to be added, in seconds since 1970.

    Without a usage, it is the first whole minute of the object: one of the same name may have been there
    before it.
    """
    if stored is not None and stored.until:
        return from_time(stored.until).timestamp()
    created = from_time(endpoint.created).timestamp()
    return -(-created // MINUTE_SECONDS) * MINUTE_SECONDS
