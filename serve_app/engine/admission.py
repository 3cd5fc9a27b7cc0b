"""What a replica lets in: so many requests, tokens of large ones, and of a key no more than its share."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from serve_app.engine.records import current_record
from serve_app.http.errors import OverloadedError

# A key may hold up to so many times the places that are free. So one key alone gets four fifths of them, two
# get four ninths each, and another key always finds some. The rule is that of Choudhury and Hahne 1998,
# "Dynamic queue length thresholds for shared-memory packet switches".
_SHARE: Final = 4


class Admission:
    """Counts the requests inside a replica and the tokens of large ones."""

    def __init__(self) -> None:
        self._requests = 0
        self._tokens = 0
        self._of_caller: Counter[str] = Counter()

    @property
    def requests(self) -> int:
        """How many requests are inside."""
        return self._requests

    @property
    def large_tokens(self) -> int:
        """How many tokens the large requests inside have."""
        return self._tokens

    @contextmanager
    def place(self, limit: int) -> Iterator[None]:
        """Hold one of `limit` places for a request; OverloadedError if there is none for its caller."""
        if self._requests >= limit:
            raise OverloadedError(f"{self._requests} requests are in this replica, which takes {limit}")
        record = current_record()
        caller = record.caller if record is not None else ""
        own = self._of_caller[caller]
        if caller and own >= max(1, _SHARE * (limit - self._requests)):
            raise OverloadedError(
                f"{own} requests of this key are in this replica, which takes {limit} and keeps places for "
                "others"
            )
        self._requests += 1
        self._of_caller[caller] += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._of_caller[caller] -= 1
            if not self._of_caller[caller]:
                del self._of_caller[caller]

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
