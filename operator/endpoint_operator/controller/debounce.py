"""Wait until something has rung and it is quiet again, but not for ever."""

import asyncio


class Doorbell:
    """Rung by events; a burst of rings counts as one."""

    def __init__(self, quiet_seconds: float, limit_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._limit_seconds = limit_seconds
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Say that something happened."""
        self._rung.set()

    async def wait(self, timeout: float) -> bool:
        """Return True once it rang and was quiet since, or rang for too long; False after `timeout`."""
        if not await self._rings_within(timeout):
            return False
        clock = asyncio.get_running_loop().time
        latest = clock() + self._limit_seconds
        while (left := latest - clock()) > 0:
            if not await self._rings_within(min(self._quiet_seconds, left)):
                break
        return True

    async def _rings_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True
