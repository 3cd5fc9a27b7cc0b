"""What the project promises of generation, each held against the rows that were measured; pure."""

from collections.abc import Iterator, Sequence

from bench.claims import SAME, Claim
from bench.generation.rows import GenerationRow, of_ours
from bench.generation.servers import EQUAL
from bench.rows import IN_PROCESS, OURS


def check(rows: Sequence[GenerationRow]) -> list[Claim]:
    """Return all claims with their verdicts."""
    return [*_with_equal_weights(rows), *_each_at_its_best(rows), *_at_random_times(rows)]


def _with_equal_weights(rows: Sequence[GenerationRow]) -> Iterator[Claim]:
    for row in _peers(rows):
        ours = of_ours(rows, row.streams, row.dtype)
        if row.dtype not in EQUAL or row.rate:
            continue
        where = f"{row.dtype}, {row.load}"
        if row.streams > 1:
            promise = f"{where}: tokens/s above those of {row.named}"
            yield _held(promise, ours.tokens_per_s / row.tokens_per_s if ours else None, least=1.0)
        else:
            promise = f"{where}: time between tokens no longer than that of {row.named}"
            yield _held(promise, ours.gap_p50_ms / row.gap_p50_ms if ours else None, most=SAME)


def _each_at_its_best(rows: Sequence[GenerationRow]) -> Iterator[Claim]:
    best: dict[tuple[str, int], GenerationRow] = {}
    for row in _peers(rows):
        if not row.rate:
            best[row.server, row.streams] = max(
                best.get((row.server, row.streams), row), row, key=lambda each: each.tokens_per_s
            )
    for row in best.values():
        ours = of_ours(rows, row.streams)
        shown = f" ({ours.dtype} and {row.dtype})" if ours else ""
        promise = f"{row.load}, each in its fastest format: tokens/s above those of {row.named}"
        claim = _held(promise, ours.tokens_per_s / row.tokens_per_s if ours else None, least=1.0)
        yield Claim(claim.promise, claim.measured + shown, claim.holds)


def _at_random_times(rows: Sequence[GenerationRow]) -> Iterator[Claim]:
    for row in rows:
        if row.server == OURS and row.rate:
            promise = f"{row.dtype}, {row.load} at random times: no failures"
            yield Claim(promise, f"{row.failures} of {row.begun}", not row.failures)


def _peers(rows: Sequence[GenerationRow]) -> list[GenerationRow]:
    """Return the rows of other servers that did generate something."""
    return [row for row in rows if row.server not in (OURS, IN_PROCESS) and row.tokens_per_s > 0]


def _held(promise: str, value: float | None, least: float = 0.0, most: float = float("inf")) -> Claim:
    return Claim(promise, f"{value:.2f} x" if value else "", least <= value <= most if value else None)
