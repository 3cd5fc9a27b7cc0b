"""Clients that each send a request, wait for its answer, and send the next: a closed loop."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from endpoint_operator.load.connections import Connections
from endpoint_operator.load.timing import Answered

# Without a server, a loop would only try to connect.
PAUSE_SECONDS: Final = 0.1


class Sender:
    """Sends one body after the other and notes what happened.

    `statuses` counts the answers by their status, 0 for those that did not come.
    """

    def __init__(self, connections: Connections, bodies: Sequence[bytes]) -> None:
        self._connections = connections
        self._bodies: Iterator[bytes] = itertools.cycle(bodies)
        self.answered: list[Answered] = []
        self.statuses: Counter[int] = Counter()

    async def send(self, intended: float) -> int:
        """Send the next body and return the status of its answer; it was to be sent at `intended`."""
        status = await self._connections.post(next(self._bodies))
        self.answered.append(Answered(intended, time.perf_counter(), status == 200))
        self.statuses[status] += 1
        return status


async def send_until(sender: Sender, clients: int, end: float) -> None:
    """Let `clients` send until `end`, a time of `perf_counter`, and wait for their last answers."""
    await asyncio.gather(*(_send_until(sender, end) for _ in range(clients)))


async def _send_until(sender: Sender, end: float) -> None:
    while (now := time.perf_counter()) < end:
        if not await sender.send(now):
            await asyncio.sleep(PAUSE_SECONDS)
