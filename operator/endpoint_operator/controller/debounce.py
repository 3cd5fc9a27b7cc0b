"""Turn a burst of triggers into one, with a limit for a burst that never ends."""

import asyncio


class Debouncer:
    """Watch events trigger it; the loop waits until no trigger has come for a while."""

    def __init__(self, quiet_seconds: float, limit_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._limit_seconds = limit_seconds
        self._triggered = asyncio.Event()

    def trigger(self) -> None:
        """End the wait, once no other trigger has come for `quiet_seconds`."""
        self._triggered.set()

    async def wait(self, timeout: float | None) -> bool:
        """Wait for a trigger and the quiet after it; return False if none came within `timeout` seconds.

        Triggers that follow each other delay the return by at most `limit_seconds`.
        """
        if not await self._triggered_within(timeout):
            return False
        clock = asyncio.get_running_loop().time
        latest = clock() + self._limit_seconds
        while (left := latest - clock()) > 0:
            if not await self._triggered_within(min(self._quiet_seconds, left)):
                break
        return True

    async def _triggered_within(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._triggered.wait()
        except TimeoutError:
            return False
        self._triggered.clear()
        return True
