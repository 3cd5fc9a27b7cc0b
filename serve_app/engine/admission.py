"""What a replica lets in: so many requests, tokens of large ones, and of a key no more than its share."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from serve_app.engine.records import current_record
from serve_app.http.errors import OverloadedError

# A key may hold up to so many times the places that are free. So one key alone gets four fifths of them, two
# get four ninths each, and another key finds some, unless there are fewer than about five. The rule is from
# Choudhury and Hahne 1998, "Dynamic queue length thresholds for shared-memory packet switches".
_SHARE: Final = 4

# How long a request waits for a place while its key has its share of them.
_PATIENCE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class _Caller:
    """Whose request runs, and whether it shares the places with other keys."""

    name: str
    shares: bool

    @classmethod
    def now(cls) -> "_Caller":
        record = current_record()
        return cls("", shares=False) if record is None else cls(record.caller, record.has_keys)


class Admission:
    """Counts the requests inside a replica and the tokens of large ones."""

    def __init__(self) -> None:
        self._requests = 0
        self._tokens = 0
        self._of_caller: Counter[str] = Counter()
        # Those that wait for their key's share, in their order.
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def requests(self) -> int:
        """How many requests are inside."""
        return self._requests

    @property
    def large_tokens(self) -> int:
        """How many tokens the large requests inside have."""
        return self._tokens

    def most_places(self, limit: int) -> int:
        """Return how many of `limit` places the running request's caller gets of an idle replica."""
        if not _Caller.now().shares:
            return limit
        return max(1, math.ceil(limit * _SHARE / (1 + _SHARE)))

    async def wait_for_share(self, limit: int) -> None:
        """Wait a moment while the caller has its share of `limit` places and others are free.

        A client that is refused at once asks again at once, which costs more than to let it wait.
        """
        caller = _Caller.now()
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._is_beyond(caller, limit) and self._requests < limit and len(self._waiting) < limit // 2:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await place
            except TimeoutError:
                return
            finally:
                if place in self._waiting:
                    self._waiting.remove(place)

    @contextmanager
    def place(self, limit: int) -> Iterator[None]:
        """Hold one of `limit` places for a request; OverloadedError if there is none for its caller."""
        if self._requests >= limit:
            raise OverloadedError(f"{self._requests} requests are in this replica, which takes {limit}")
        caller = _Caller.now()
        if self._is_beyond(caller, limit):
            own = self._of_caller[caller.name]
            raise OverloadedError(
                f"{own} requests of this key are in this replica, which takes {limit} and keeps places for "
                "others"
            )
        self._requests += 1
        self._of_caller[caller.name] += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._of_caller[caller.name] -= 1
            if not self._of_caller[caller.name]:
                del self._of_caller[caller.name]
            self._wake_one()

    def _wake_one(self) -> None:
        """Let the one that has waited longest look again."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return

    def _is_beyond(self, caller: "_Caller", limit: int) -> bool:
        """Whether the caller has its share of `limit` places already."""
        share = max(1, _SHARE * (limit - self._requests))
        return caller.shares and self._of_caller[caller.name] >= share

    @contextmanager
    def tokens(self, tokens: int, longest: int, limit: int) -> Iterator[None]:
        """Count the tokens of a request that is larger than one text may be, or refuse it.

        Such requests together get `limit` tokens; one gets in whatever its size. Others need only a place.
        """
        if tokens <= longest:
            yield
            return
        if self._tokens and self._tokens + tokens > limit:
            raise OverloadedError(
                f"the request has {tokens} tokens, and large requests with {self._tokens} are in this "
                f"replica, which takes {limit}"
            )
        self._tokens += tokens
        try:
            yield
        finally:
            self._tokens -= tokens
