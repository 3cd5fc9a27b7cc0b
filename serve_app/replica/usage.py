"""What this replica has done, minute by minute: requests, tokens, and the seconds in which it computed."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ray import serve

from serve_app.contract import MINUTE_SECONDS, UsageMinute
from serve_app.engine.records import BatchRecord, Observers, RequestRecord
from serve_app.protocols import INFO, METADATA
from serve_app.replica.busy_time import BusyTime
from serve_app.replica.shutdown import grace_of_shutdown
from serve_app.replica.usage_store import (
    HISTORY_SECONDS,
    RayUsageStore,
    ReplicaUsage,
    UsageStore,
    to_value,
    usage_key,
)

WRITE_SECONDS: Final = 20.0
# How often it looks whether it has been asked to stop. Then it writes as often, because it ends as soon as it
# has answered what it has begun.
_LOOK_SECONDS: Final = 1.0

# Above a limit, or the room of the replica.
_TOO_MUCH: Final = 429
# What is not asked of the model itself, but about it.
_ABOUT_THE_MODEL: Final = (INFO, METADATA, "ModelMetadata", "ModelReady")

logger = logging.getLogger("ray.serve")


@dataclass(slots=True)
class _Sums:
    """One minute. A model of pydantic would take some microseconds of each request."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    compute_seconds: float = 0.0
    replica_seconds: float = 0.0

    def to_minute(self, begin: int) -> UsageMinute:
        return UsageMinute(
            begin=begin,
            requests=self.requests,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            compute_seconds=round(self.compute_seconds, 3),
            replica_seconds=round(self.replica_seconds, 3),
        )


class UsageCounter:
    """Adds up by minutes of the wall clock; it is not to be used by several threads."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        """`clock` is that of the records, `wall` that of the minutes: seconds since 1970."""
        self._clock = clock
        self._wall = wall
        # By the begin of the minute.
        self._sums: defaultdict[int, _Sums] = defaultdict(_Sums)
        self._alive_until = clock()
        self._busy = BusyTime()

    def add_request(self, record: RequestRecord) -> None:
        """Count a request that is over, unless it failed, was refused, or only asked what the model is."""
        if record.is_refused or record.status == _TOO_MUCH or record.status >= 500:
            return
        if record.verb in _ABOUT_THE_MODEL:
            return
        sums = self._sums[_minute(self._wall())]
        sums.requests += 1
        sums.input_tokens += record.input_tokens
        sums.output_tokens += record.output_tokens

    def add_batch(self, record: BatchRecord) -> None:
        """Count the seconds of a batch that is over, but those in which another one ran too."""
        self._sums[_minute(self._wall())].compute_seconds += self._busy.add(record.began, record.seconds)

    def snapshot(self, *, ending: bool = False) -> ReplicaUsage:
        """Return what is known now of the last two hours."""
        now, written = self._clock(), self._wall()
        # The wall clock may have been set since.
        for begin, seconds in _split(written - (now - self._alive_until), written):
            self._sums[begin].replica_seconds += seconds
        self._alive_until = now
        for begin in [begin for begin in self._sums if begin <= written - HISTORY_SECONDS]:
            del self._sums[begin]
        return ReplicaUsage(
            written=round(written, 3),
            minutes=[self._sums[begin].to_minute(begin) for begin in sorted(self._sums)],
            ending=ending,
        )


def _split(begin: float, end: float) -> Iterator[tuple[int, float]]:
    """Yield the begin of each minute between two times, and its seconds between them."""
    while begin < end:
        minute = _minute(begin)
        until = min(end, float(minute + MINUTE_SECONDS))
        yield minute, until - begin
        begin = until


def _minute(seconds: float) -> int:
    return int(seconds // MINUTE_SECONDS) * MINUTE_SECONDS


class UsageWriter:
    """Writes what a counter knows into the store, under one key."""

    def __init__(
        self,
        counter: UsageCounter,
        store: UsageStore,
        key: str,
        is_ending: Callable[[], bool],
        seconds: float = WRITE_SECONDS,
    ) -> None:
        """It writes every `seconds`, and more often once `is_ending` says that it has been asked to stop."""
        self._counter = counter
        self._store = store
        self._key = key
        self._is_ending = is_ending
        self._seconds = seconds
        self._failing = False

    @classmethod
    def of_this_replica(cls) -> "UsageWriter":
        """Return the writer of the replica that this process is, of what it does from now on."""
        context = serve.get_replica_context()
        key = usage_key(context.app_name, context.replica_id.unique_id)
        return cls(UsageCounter(), RayUsageStore(), key, lambda: grace_of_shutdown() is not None)

    def start(self) -> None:
        """Write in a task of its own, for as long as this process lives."""
        self._task = asyncio.create_task(self.run())

    def observe(self, observers: Observers) -> None:
        """Count the requests and batches that the observers are told of."""
        observers.requests.append(self._counter.add_request)
        observers.batches.append(self._counter.add_batch)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            ending = self._is_ending()
            await self._write(self._counter.snapshot(ending=ending))
            pause = min(_LOOK_SECONDS, self._seconds)
            due = time.monotonic() + (pause if ending else self._seconds)
            while time.monotonic() < due and self._is_ending() is ending:
                await asyncio.sleep(pause)

    async def _write(self, usage: ReplicaUsage) -> None:
        try:
            await asyncio.to_thread(self._store.put, self._key, to_value(usage))
        except Exception as error:
            # Whatever it is, the next attempt writes what this one could not. Logged once.
            if not self._failing:
                logger.warning("what this replica has used cannot be written: %r", error)
            self._failing = True
        else:
            self._failing = False
