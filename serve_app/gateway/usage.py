"""`GET /v2/usage`: what each model has used, minute by minute; for the operator, which has Ray's own token.

Whoever has that token may run code in the Ray cluster, so it is never a client's. Others are answered as if
there were nothing at the path. A Ray that asks for no token cannot tell the operator from a client, and then
nobody is answered.

On one machine there is no operator (OPEN_USAGE_VARIABLE): there clients are answered, as by the lists of
models.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from secrets import compare_digest
from typing import Final

from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve_app.contract import (
    MINUTE_SECONDS,
    OPEN_USAGE_VARIABLE,
    USAGE_PATH,
    ModelUsage,
    UsageMinute,
    UsageReport,
)
from serve_app.gateway.visible_models import VisibleModels
from serve_app.http.errors import JSON_TYPE, UnknownPathError
from serve_app.replica.usage_store import (
    HISTORY_SECONDS,
    RayUsageStore,
    ReplicaUsage,
    UsageStore,
    application_of,
    parse_value,
)

# A replica may have begun, and not have written yet.
_SLACK_SECONDS: Final = 30
# A replica that has not written for so long, and was not asked to stop, is gone. Until then its minutes are
# waited for, because Ray's head may have been away.
_GONE_SECONDS: Final = 900


def usage_route(
    now: Callable[[], float],
    visible: VisibleModels | None,
    *,
    store: UsageStore | None = None,
    authorization: Callable[[], str] | None = None,
) -> Route:
    """Return the route. `now` is in seconds since 1970; `authorization` returns the header that is asked for.

    `visible` says what clients are told of on one machine. The store and the token are those of Ray if they
    are not given.
    """
    usages, expected = store or RayUsageStore(), authorization or _authorization

    async def usage(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        wanted = expected()
        names = None
        if not wanted or not compare_digest(given.encode(), wanted.encode()):
            if visible is None or os.environ.get(OPEN_USAGE_VARIABLE) != "1":
                raise UnknownPathError(f"there is nothing at {request.url.path}")
            names = {state.name for state in await visible.all(request.headers)}
        report = await asyncio.to_thread(read_report, usages, now())
        if names is not None:
            told = {name: model for name, model in report.models.items() if name in names}
            report = UsageReport(now=report.now, models=told)
        return Response(report.model_dump_json(exclude_defaults=True), media_type=JSON_TYPE)

    return Route(USAGE_PATH, usage, methods=["GET"])


def _authorization() -> str:
    """Return the header that Ray's own clients send; empty if Ray asks for no token."""
    if not is_token_auth_enabled():
        return ""
    headers: Mapping[str, str] = AuthenticationTokenLoader.instance().get_token_for_http_header()
    return headers.get("authorization", "")


def read_report(store: UsageStore, now: float) -> UsageReport:
    """Return what the replicas have written, and remove what is too old to be asked for; blocks."""
    models: dict[str, list[ReplicaUsage]] = defaultdict(list)
    for key, value in store.items().items():
        usage = parse_value(value)
        if usage is None:
            continue
        if usage.written < now - HISTORY_SECONDS:
            store.remove(key)
        else:
            models[application_of(key)].append(usage)
    return UsageReport(
        now=int(now), models={name: _of_model(replicas, now) for name, replicas in sorted(models.items())}
    )


def _of_model(replicas: Iterable[ReplicaUsage], now: float) -> ModelUsage:
    """Return the sum over the replicas of one model."""
    until = now - _SLACK_SECONDS
    minutes: dict[int, UsageMinute] = {}
    for replica in replicas:
        if replica.written > now - (_SLACK_SECONDS if replica.ending else _GONE_SECONDS):
            until = min(until, replica.written)
        for minute in replica.minutes:
            before = minutes.get(minute.begin)
            minutes[minute.begin] = minute if before is None else _sum(before, minute)
    complete = int(until // MINUTE_SECONDS) * MINUTE_SECONDS
    return ModelUsage(until=complete, minutes=[minutes[begin] for begin in sorted(minutes)])


def _sum(one: UsageMinute, other: UsageMinute) -> UsageMinute:
    return UsageMinute(
        begin=one.begin,
        requests=one.requests + other.requests,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        compute_seconds=round(one.compute_seconds + other.compute_seconds, 3),
        replica_seconds=round(one.replica_seconds + other.replica_seconds, 3),
    )
