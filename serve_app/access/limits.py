"""What one key may ask of one endpoint: requests and tokens a minute, and requests at once. Pure.

Each replica has its share of what a minute has, and counts by itself. The buckets are those of RFC 2697 with
one rate: full at first, and filled evenly. Tokens are known when a request is over, so that a bucket may owe
some; a request begins while it owes none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from serve_app.http.errors import RateLimitedError

_MINUTE: Final = 60.0
# Keys that have not asked for so long have full buckets again, and need not be remembered.
_FORGOTTEN_AFTER: Final = 2 * _MINUTE


@dataclass(frozen=True)
class KeyLimits:
    """What each key may ask of one endpoint; 0 sets no limit."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    requests_at_once: int = 0


@dataclass
class _Bucket:
    """What is left of a minute's amount."""

    left: float
    at: float

    def fill(self, amount: float, now: float) -> None:
        """Add what has come since; an amount that has become smaller holds at once."""
        self.left = min(amount, self.left + (now - self.at) * amount / _MINUTE)
        self.at = now

    def seconds_until(self, wanted: float, amount: float) -> float:
        return max(0.0, (wanted - self.left) * _MINUTE / amount)


@dataclass
class _Usage:
    """What a key has left, by the limits of that time, and how many of its requests are inside."""

    limits: KeyLimits
    replicas: int
    requests: _Bucket
    tokens: _Bucket
    at_once: int = 0


class KeyLimiter:
    """Counts by caller. `limits`, and how many `replicas` share them, may be replaced at any time."""

    def __init__(self) -> None:
        self.limits = KeyLimits()
        self.replicas = 1
        self._usage: dict[str, _Usage] = {}
        self._swept = 0.0

    @property
    def applies(self) -> bool:
        """Whether anything is limited."""
        return self.limits != KeyLimits()

    def begin(self, caller: str, now: float) -> None:
        """Count a request; raise RateLimitedError if the caller may not begin one now."""
        self._forget(now)
        usage = self._of(caller, now)
        at_once = self._at_once
        if at_once and usage.at_once >= at_once:
            raise RateLimitedError(
                f"{usage.at_once} requests of this key are being answered, and it may have {at_once} at once",
                1.0,
                limit=at_once,
            )
        self._require_tokens(usage)
        self._take_request(usage)
        usage.at_once += 1

    def end(self, caller: str, tokens: int) -> None:
        """Count a request that has begun and is over, with its tokens."""
        usage = self._usage[caller]
        usage.at_once -= 1
        if self.limits.tokens_per_minute:
            usage.tokens.left -= tokens

    def headers(self, caller: str, now: float) -> Mapping[str, str]:
        """Return what is left, in the headers that OpenAI's API has (API reference, "Rate limits")."""
        usage = self._of(caller, now)
        headers = {}
        for name, amount, bucket in (
            ("requests", self._requests, usage.requests),
            ("tokens", self._tokens, usage.tokens),
        ):
            if amount:
                headers[f"x-ratelimit-limit-{name}"] = str(math.ceil(amount))
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.left)))
                headers[f"x-ratelimit-reset-{name}"] = f"{bucket.seconds_until(amount, amount):.3g}s"
        return headers

    @property
    def _requests(self) -> float:
        """This replica's share of the requests of a minute; a replica takes one at least."""
        return _share(self.limits.requests_per_minute, self.replicas)

    @property
    def _tokens(self) -> float:
        return _share(self.limits.tokens_per_minute, self.replicas)

    @property
    def _at_once(self) -> int:
        return math.ceil(_share(self.limits.requests_at_once, self.replicas))

    def _require_tokens(self, usage: _Usage) -> None:
        amount = self._tokens
        if amount and usage.tokens.left < 1:
            raise RateLimitedError(
                f"this key has used up its {self.limits.tokens_per_minute} tokens a minute",
                usage.tokens.seconds_until(1, amount),
                limit=self.limits.tokens_per_minute,
            )

    def _take_request(self, usage: _Usage) -> None:
        amount = self._requests
        if not amount:
            return
        if usage.requests.left < 1:
            raise RateLimitedError(
                f"this key has used up its {self.limits.requests_per_minute} requests a minute",
                usage.requests.seconds_until(1, amount),
                limit=self.limits.requests_per_minute,
            )
        usage.requests.left -= 1

    def _of(self, caller: str, now: float) -> _Usage:
        usage = self._usage.get(caller)
        if usage is None or usage.limits != self.limits:
            # Other limits begin with full buckets.
            inside = 0 if usage is None else usage.at_once
            buckets = _Bucket(self._requests, now), _Bucket(self._tokens, now)
            usage = self._usage[caller] = _Usage(self.limits, self.replicas, *buckets, inside)
            return usage
        if usage.replicas != self.replicas:
            # What is left of the whole limit stays the same.
            for bucket in (usage.requests, usage.tokens):
                bucket.left *= usage.replicas / self.replicas
            usage.replicas = self.replicas
        for amount, bucket in ((self._requests, usage.requests), (self._tokens, usage.tokens)):
            if amount:
                bucket.fill(amount, now)
        return usage

    def _forget(self, now: float) -> None:
        """Let go of callers whose buckets are full, now and then."""
        if now - self._swept < _FORGOTTEN_AFTER:
            return
        self._swept = now
        for caller, usage in list(self._usage.items()):
            full = usage.tokens.left + (now - usage.tokens.at) * self._tokens / _MINUTE >= self._tokens
            if not usage.at_once and full and now - usage.requests.at > _FORGOTTEN_AFTER:
                del self._usage[caller]


def _share(amount: int, replicas: int) -> float:
    """Return a replica's part of an amount, at least 1; 0 if there is no limit."""
    return max(1.0, amount / max(1, replicas)) if amount else 0.0
