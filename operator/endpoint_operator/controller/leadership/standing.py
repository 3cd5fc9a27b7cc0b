"""What one of several operators knows of their Lease, and what it does next. Pure.

The protocol is that of client-go's `leaderelection`: whoever holds the Lease renews it, and whoever has seen
no renewal for as long as the Lease lasts may take it. Each measures that with a clock of its own. The times
in the Lease are for people, because the clocks of two machines may differ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, Final, Self

# The setting has this bound, so that what is longer was not written by an operator.
LONGEST_SECONDS: Final = 300

# Parts of the time for which a Lease lasts. Whoever cannot renew it begins no write after the first one, and
# every write has ended after the second one: before anybody else may take the Lease.
BEGIN_WRITES_WITHIN: Final = 2 / 3
END_WRITES_WITHIN: Final = 5 / 6

# So long a Lease lasts that its holder has given up, as client-go writes it. Another one without a holder was
# edited by hand, and whoever held it may not know yet.
_RELEASED_SECONDS: Final = 1


@dataclass(frozen=True)
class Record:
    """What a Lease says; whatever is missing or makes no sense is empty or 0."""

    holder: str = ""
    seconds: int = 0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0

    @property
    def is_released(self) -> bool:
        """Whether its last holder has given it up."""
        return not self.holder and self.seconds == _RELEASED_SECONDS


class Step(Enum):
    """What to do next about the Lease."""

    WAIT = auto()
    CREATE = auto()
    REPLACE = auto()
    # It does not lead any more.
    RESIGN = auto()


@dataclass(frozen=True)
class Standing:
    """What the operator `identity` knows, in seconds of its own clock; `seconds` is how long its Lease lasts.

    `others_until` is when everybody else has stopped who may have led. `renewed_at` is when it began the last
    claim that succeeded; it does not lead without one.
    """

    identity: str
    seconds: int
    record: Record | None = None
    others_until: float = -math.inf
    renewed_at: float | None = None

    @property
    def leads(self) -> bool:
        """Whether it has won the Lease and not resigned; `step` says whether it still may."""
        return self.renewed_at is not None

    @property
    def begin_writes_until(self) -> float:
        """When it begins no other write unless it renews the Lease before."""
        return -math.inf if self.renewed_at is None else self.renewed_at + BEGIN_WRITES_WITHIN * self.seconds

    @property
    def end_writes_until(self) -> float:
        """When all its writes have ended unless it renews the Lease before."""
        return -math.inf if self.renewed_at is None else self.renewed_at + END_WRITES_WITHIN * self.seconds

    def saw(self, record: Record | None, now: float) -> Self:
        """Return what it knows after it has read the Lease; `record` is None if there is none.

        A Lease that a person deleted, emptied, renamed or shortened frees nobody's place: its holder may not
        know yet.
        """
        until = self.others_until
        if record is not None and record != self.record:
            if record.is_released:
                until = -math.inf
            elif record.holder not in ("", self.identity):
                until = max(until, now + min(max(record.seconds, self.seconds), LONGEST_SECONDS))
        return replace(self, record=record, others_until=until)

    def claimed(self, record: Record, began: float) -> Self:
        """Return what it knows after a claim that it began at `began` has succeeded."""
        return replace(self, record=record, others_until=-math.inf, renewed_at=began)

    def step(self, now: float) -> Step:
        """Return what to do now, after a look at the Lease or a claim."""
        if self.leads:
            is_anothers = self.record is not None and self.record.holder not in ("", self.identity)
            if is_anothers or now >= self.begin_writes_until:
                return Step.RESIGN
        elif now < self.others_until:
            return Step.WAIT
        return Step.CREATE if self.record is None else Step.REPLACE

    def claim(self, now: datetime) -> dict[str, Any]:
        """Return the spec of the Lease that makes this operator its holder."""
        record = self.record or Record()
        is_ours = record.holder == self.identity
        time = _written(now)
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.seconds,
            "acquireTime": record.acquired if is_ours and record.acquired else time,
            "renewTime": time,
            "leaseTransitions": record.transitions + (self.record is not None and not is_ours),
        }

    def release(self, now: datetime) -> dict[str, Any]:
        """Return the spec of the Lease that says that this operator has stopped."""
        record = self.record or Record()
        time = _written(now)
        return {
            "leaseDurationSeconds": _RELEASED_SECONDS,
            "acquireTime": time,
            "renewTime": time,
            "leaseTransitions": record.transitions,
        }


def parse_record(manifest: Mapping[str, Any]) -> Record:
    """Return what a Lease says, whatever somebody has written into it."""
    spec = manifest.get("spec") or {}
    seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Record(
        holder=spec.get("holderIdentity") or "",
        seconds=seconds if isinstance(seconds, int) else 0,
        acquired=spec.get("acquireTime") or "",
        renewed=spec.get("renewTime") or "",
        transitions=transitions if isinstance(transitions, int) else 0,
    )


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
