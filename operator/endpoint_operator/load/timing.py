"""When requests are to be sent, and what their times amount to; pure."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """One request: when it was to be sent, when it was answered, and whether that was a success."""

    started: float
    ended: float
    succeeded: bool

    @property
    def seconds(self) -> float:
        """Latency."""
        return self.ended - self.started


@dataclass(frozen=True)
class Summary:
    """What a client saw during the measured time."""

    rps: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    failures: int
    requests: int


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed; NaN of none."""
    if not values:
        return math.nan
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def poisson_times(rate: float, start: float, end: float, seed: int) -> list[float]:
    """Return the times between `start` and `end` of requests that arrive at random `rate` times a second.

    They are those of a Poisson process with just the number of arrivals that is to be expected: given the
    number, the times are independent and uniform (Ross, Introduction to Probability Models, theorem 5.2).
    A random number would be off by several per cent in a few seconds, and close to a server's capacity a
    few per cent are the difference between a short queue and one that grows without end.
    """
    source = random.Random(seed)
    return sorted(source.uniform(start, end) for _ in range(round(rate * (end - start))))


def summarize(requests: Sequence[Answered], start: float, end: float) -> Summary:
    """Return what happened between `start` and `end`.

    Each success counts for the rate by the share of its time that lies in between: a batch that
    straddles an end would otherwise count wholly or not at all. The latencies are those of requests
    that began in between.
    """
    begun = [request for request in requests if start <= request.started < end]
    seconds = [request.seconds for request in begun if request.succeeded]
    shares = [_share(request, start, end) for request in requests if request.succeeded]
    return Summary(
        rps=sum(shares) / (end - start),
        p50_ms=percentile(seconds, 0.5) * 1000,
        p90_ms=percentile(seconds, 0.9) * 1000,
        p99_ms=percentile(seconds, 0.99) * 1000,
        failures=sum(not request.succeeded for request in begun),
        requests=len(begun),
    )


def _share(request: Answered, start: float, end: float) -> float:
    inside = min(request.ended, end) - max(request.started, start)
    return max(0.0, inside) / max(request.seconds, 1e-9)
