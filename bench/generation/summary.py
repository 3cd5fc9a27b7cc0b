"""What streams amount to, as their clients saw them; pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.generation.events import Stream
from endpoint_operator.load.timing import percentile


@dataclass(frozen=True)
class Summary:
    """What clients saw during the measured time; NaN where there was nothing to see."""

    # Of all streams together.
    tokens_per_s: float
    # From when a request was to be sent to its first text.
    first_p50_ms: float
    first_p90_ms: float
    # Between two events with text of a stream.
    gap_p50_ms: float
    gap_p90_ms: float
    gap_max_ms: float
    # Streams that began in the measured time, and how many of them failed.
    streams: int
    failures: int
    # More than one says that gaps are not those of single tokens.
    tokens_per_event: float
    # The most frequent problem, if there was one.
    problem: str = ""


def summarize(streams: Sequence[Stream], start: float, end: float) -> Summary:
    """Return what happened between `start` and `end`.

    The rate has the tokens that came in between; each event has its share of its stream's tokens.
    Times to the first text are of streams that began in between, gaps of those that ended in between.
    """
    begun = [stream for stream in streams if start <= stream.intended < end]
    right = [stream for stream in streams if not stream.problem]
    events = sum(len(stream.times) for stream in right)
    tokens = sum(
        stream.tokens / len(stream.times) * sum(start <= time < end for time in stream.times)
        for stream in right
    )
    firsts = [stream.times[0] - stream.intended for stream in begun if not stream.problem]
    gaps = [
        gap
        for stream in right
        for gap, time in zip(stream.gaps, stream.times[1:], strict=True)
        if start <= time < end
    ]
    problems = Counter(stream.problem for stream in begun if stream.problem).most_common(1)
    return Summary(
        tokens_per_s=tokens / (end - start),
        first_p50_ms=percentile(firsts, 0.5) * 1000,
        first_p90_ms=percentile(firsts, 0.9) * 1000,
        gap_p50_ms=percentile(gaps, 0.5) * 1000,
        gap_p90_ms=percentile(gaps, 0.9) * 1000,
        gap_max_ms=percentile(gaps, 1.0) * 1000,
        streams=len(begun),
        failures=sum(bool(stream.problem) for stream in begun),
        tokens_per_event=sum(stream.tokens for stream in right) / events if events else 0.0,
        problem=problems[0][0] if problems else "",
    )
