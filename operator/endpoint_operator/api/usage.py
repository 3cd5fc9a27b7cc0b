"""Sums of what a model has used, minute by minute. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

from endpoint_operator.api.status import Usage
from serve_app.contract import UsageMinute


def with_minutes(before: Usage, minutes: Sequence[UsageMinute], until: int) -> Usage:
    """Return `before` and `minutes`, of which there is one at least; all before `until` are in it then.

    `until` is in seconds since 1970. Memory and cost stay as they are.
    """
    compute = before.compute_seconds + sum(minute.compute_seconds for minute in minutes)
    alive = before.replica_seconds + sum(minute.replica_seconds for minute in minutes)
    return Usage(
        requests=before.requests + sum(minute.requests for minute in minutes),
        input_tokens=before.input_tokens + sum(minute.input_tokens for minute in minutes),
        output_tokens=before.output_tokens + sum(minute.output_tokens for minute in minutes),
        compute_seconds=round(compute, 3),
        replica_seconds=round(alive, 3),
        # The last seconds of a replica that was killed are not known, but a batch of them may be.
        idle_share=round(max(0.0, 1 - compute / alive), 4) if alive else None,
        memory_share=before.memory_share,
        cost=before.cost,
        since=before.since or _to_text(min(minute.begin for minute in minutes)),
        until=_to_text(until),
    )


def _to_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
