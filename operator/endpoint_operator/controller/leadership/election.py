"""Win the Lease, renew it, notice when it is lost, and give it up at the end.

The Python client's own election has no time limits, measures with a clock that can be set, and ends at a
connection that breaks.
"""

import asyncio
import logging
import random
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from endpoint_operator.controller.leadership.standing import Standing, Step, parse_record
from endpoint_operator.controller.probes import Heartbeat
from endpoint_operator.kube.errors import ConflictError, KubeError, NotFoundError
from endpoint_operator.kube.gate import WriteGate, now
from endpoint_operator.kube.lease import LeaseClient

logger = logging.getLogger(__name__)

# Parts of the time for which the Lease lasts.
ANSWER_WITHIN: Final = 1 / 3
_RENEW_EVERY: Final = 1 / 6
_LOOK_EVERY: Final = 1 / 15

_RELEASE_SECONDS: Final = 3.0


class LeadershipLostError(Exception):
    """This operator may not write any more; the message says why."""


def new_identity() -> str:
    """Return a name that no other process has; it begins with that of the pod."""
    return f"{socket.gethostname()}_{secrets.token_hex(4)}"


class Election:
    """Takes part with one Lease that lasts `seconds`, and opens `gate` for as long as it leads."""

    def __init__(
        self,
        lease: LeaseClient,
        identity: str,
        seconds: int,
        gate: WriteGate,
        heartbeat: Heartbeat,
        clock: Callable[[], float] = now,
    ) -> None:
        self._lease = lease
        self._gate = gate
        self._heartbeat = heartbeat
        self._clock = clock
        self._standing = Standing(identity, seconds)
        # The Lease as it was read or written last, and whether that may be out of date.
        self._manifest: dict[str, Any] | None = None
        self._outdated = True
        self._complaint = ""

    @property
    def leads(self) -> bool:
        """Whether this operator has won and not resigned."""
        return self._standing.leads

    async def win(self) -> None:
        """Wait until this operator leads; without an API server, for ever."""
        logger.info("Waiting for the Lease %s as %s.", self._lease.name, self._standing.identity)
        while True:
            if await self._try():
                # It has seen the cluster. Once it leads, only a reconciliation counts.
                self._heartbeat.record()
            if self.leads:
                break
            await asyncio.sleep(self._part(_LOOK_EVERY) * random.uniform(0.8, 1.2))
        logger.info("Leads: holds the Lease %s.", self._lease.name)

    async def keep(self) -> None:
        """Renew the Lease again and again; raises LeadershipLostError when it is lost."""
        succeeded = True
        while True:
            await asyncio.sleep(self._part(_RENEW_EVERY if succeeded else _LOOK_EVERY))
            left = self._standing.begin_writes_until - self._clock()
            succeeded = left > 0 and await self._try(left)
            self._resign_if_due()

    async def release(self) -> None:
        """Give the Lease up, if it is held and all writes of this process have ended."""
        if not self.leads or not self._gate.is_drained or self._has_to_resign:
            return
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                if self._outdated:
                    await self._look()
                if self._manifest is None or self._has_to_resign:
                    return
                await self._lease.replace(self._manifest, self._standing.release(datetime.now(UTC)))
        except (KubeError, TimeoutError) as error:
            cause = str(error) or "no answer in time"
            logger.warning("Whoever leads next has to wait until the Lease has run out: %s", cause)
        else:
            logger.info("Gave the Lease %s up.", self._lease.name)

    async def step(self) -> None:
        """Look at the Lease unless it is known, and do what is due; raises KubeError."""
        if self._outdated:
            await self._look()
        self._resign_if_due()
        due = self._standing.step(self._clock())
        if due is Step.WAIT:
            return
        try:
            await self._claim(due)
        except (ConflictError, NotFoundError):
            # Somebody else was faster, or edits it by hand.
            await self._look()
            self._resign_if_due()

    async def _try(self, limit: float | None = None) -> bool:
        """Do a step within `limit` seconds, and return whether all requests were answered."""
        allowed = self._part(ANSWER_WITHIN)
        try:
            async with asyncio.timeout(allowed if limit is None else min(allowed, limit)):
                await self.step()
        except (KubeError, TimeoutError) as error:
            complaint = str(error) or f"no answer about the Lease {self._lease.name!r} in time"
            if complaint != self._complaint:
                logger.warning("%s", complaint)
            self._complaint = complaint
            return False
        self._complaint = ""
        return True

    async def _look(self) -> None:
        manifest = await self._lease.read()
        before = self._standing.record
        record = None if manifest is None else parse_record(manifest)
        self._manifest = manifest
        self._standing = self._standing.saw(record, self._clock())
        if record and record.holder and record.holder != (before.holder if before else ""):
            logger.info("The Lease %s is held by %s.", self._lease.name, record.holder)

    async def _claim(self, due: Step) -> None:
        began = self._clock()
        spec = self._standing.claim(datetime.now(UTC))
        # Until there is an answer, nobody knows what the Lease is.
        self._outdated = True
        if due is Step.CREATE or self._manifest is None:
            manifest = await self._lease.create(spec)
        else:
            manifest = await self._lease.replace(self._manifest, spec)
        self._manifest = manifest
        self._standing = self._standing.claimed(parse_record(manifest), began)
        self._outdated = False
        self._gate.open(self._standing.begin_writes_until, self._standing.end_writes_until)

    def _resign_if_due(self) -> None:
        if not self._has_to_resign:
            return
        self._gate.close()
        record = self._standing.record
        if record is not None and record.holder not in ("", self._standing.identity):
            raise LeadershipLostError(f"the Lease {self._lease.name!r} is held by {record.holder} now")
        reason = self._complaint or "there was no answer"
        raise LeadershipLostError(f"the Lease {self._lease.name!r} could not be renewed in time: {reason}")

    @property
    def _has_to_resign(self) -> bool:
        return self._standing.step(self._clock()) is Step.RESIGN

    def _part(self, part: float) -> float:
        return part * self._standing.seconds
