"""What the project promises of its speed, each held against the rows that were measured; pure."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.rows import ARTICLE, FLOAT32, IN_PROCESS, OPENAI, OURS, PEERS, Row, find, limits

# Times of a lone client that differ by less are the same.
SAME: Final = 1.05
LEAST_OF_LIMIT: Final = {"distilbert": 0.9, "sentiment": 0.8, "minilm": 0.8}


@dataclass(frozen=True)
class Claim:
    """A promise, what was measured, and whether it holds; None if it could not be measured."""

    promise: str
    measured: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        """Return the verdict in words."""
        return {True: "holds", False: "does not hold", None: "not measured"}[self.holds]


@dataclass(frozen=True)
class ColdStart:
    """Seconds and bytes of starting; empty lists where nothing was measured."""

    seconds_to_first_answer: Sequence[float]
    replica_seconds: Sequence[float]
    # Of the weights' size, above what a replica of hardly any model adds.
    second_copy_share: float | None


def check(rows: Sequence[Row], cold: ColdStart | None) -> list[Claim]:
    """Return all claims with their verdicts."""
    return [
        *_against_article(rows),
        *_against_limit(rows),
        *_against_peers(rows),
        *_under_open_load(rows),
        *_openai(rows),
        _gateway(rows),
        *(_of_cold_start(cold) if cold else ()),
    ]


def _against_article(rows: Sequence[Row]) -> Iterator[Claim]:
    """Each form of theirs, which is float32, beside each number format of ours."""
    common = {"model": "distilbert", "texts": "short", "load": "closed"}
    formats = dict.fromkeys(row.dtype for row in rows if row.server == OURS and row.model == "distilbert")
    variants = dict.fromkeys(row.variant for row in rows if row.server == ARTICLE)
    for variant, dtype in itertools.product(variants, formats):
        named = "the article's service" + (f" ({variant})" if variant else "")
        pairs = [
            (find(rows, server=OURS, dtype=dtype, clients=clients, **common),
             find(rows, server=ARTICLE, dtype=FLOAT32, clients=clients, variant=variant, **common))
            for clients in (16, 1)
        ]  # fmt: skip
        (ours, theirs), (ours_alone, theirs_alone) = pairs
        rate = ours.rps / theirs.rps if ours and theirs and theirs.rps else None
        yield _at_least(f"{dtype}: requests/s at 16 clients at least 6 x {named}", rate, 6.0)
        time = ours_alone.p50_ms / theirs_alone.p50_ms if ours_alone and theirs_alone else None
        yield _at_most(f"{dtype}: p50 at 1 client at most 1/8 of {named}", time, 1 / 8)


def _against_limit(rows: Sequence[Row]) -> Iterator[Claim]:
    for model, texts in _measured(rows):
        if model not in LEAST_OF_LIMIT:
            continue
        least = LEAST_OF_LIMIT[model]
        ours = find(rows, server=OURS, model=model, texts=texts, dtype=FLOAT32, load="closed", clients=64)
        same = find(rows, server=IN_PROCESS, model=model, texts=texts, dtype=FLOAT32, clients=64)
        promise = f"{model}, {texts}: at least {least:.0%} of the in-process limit at 64 clients"
        yield _at_least(promise, ours.rps / same.rps if ours and same else None, least)
        best = max(limits(rows, model, FLOAT32, texts), default=None)
        if ours and best:
            yield Claim(f"{model}, {texts}: the same of its best windows", f"{ours.rps / best:.2f}", None)


def _against_peers(rows: Sequence[Row]) -> Iterator[Claim]:
    for model, texts in _measured(rows):
        common = {"model": model, "texts": texts, "dtype": FLOAT32, "load": "closed"}
        for peer in PEERS:
            for clients in (16, 64, 1):
                ours = find(rows, server=OURS, clients=clients, **common)
                theirs = find(rows, server=peer, clients=clients, **common)
                if not ours or not theirs:
                    continue
                where = f"{model}, {texts}, {clients} client{'s' if clients > 1 else ''}"
                if clients == 1:
                    promise = f"{where}: p50 no worse than {peer}'s"
                    yield _at_most(promise, ours.p50_ms / theirs.p50_ms, SAME)
                else:
                    yield _at_least(f"{where}: requests/s above {peer}'s", ours.rps / theirs.rps, 1.0)


def _under_open_load(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if (row.server, row.load, row.share) != (OURS, "open", 0.9):
            continue
        alone = find(rows, server=OURS, model=row.model, texts=row.texts, dtype=row.dtype, clients=1)
        times = row.p99_ms / alone.p50_ms if alone else None
        where = f"{row.model}, {row.texts}, {row.dtype}"
        promise = f"{where}: p99 at 90 % of capacity under 10 x a lone request, no failures"
        measured = f"{times:.1f} x, {row.failures} failures" if times else ""
        yield Claim(promise, measured, times < 10 and not row.failures if times else None)


def _openai(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in rows:
        if row.route != OPENAI or row.dtype != FLOAT32:
            continue
        same = {"server": OURS, "model": row.model, "dtype": row.dtype, "texts": row.texts, "load": row.load}
        plain = find(rows, clients=row.clients, **same)
        where = f"{row.model}, {row.texts}, {row.clients} client{'s' if row.clients > 1 else ''}"
        promise = f"{where}: requests/s at {OPENAI} at least 95 % of those at predict"
        yield _at_least(promise, row.rps / plain.rps if plain and plain.rps else None, 0.95)


def _gateway(rows: Sequence[Row]) -> Claim:
    promise = "the gateway costs at most 2 ms more than the direct route at 1 client"
    through = next((row for row in rows if row.route == "gateway"), None)
    if through is None:
        return Claim(promise, "", None)
    direct = find(rows, server=OURS, model=through.model, texts=through.texts, dtype=through.dtype, clients=1)
    if direct is None:
        return Claim(promise, "", None)
    more = through.p50_ms - direct.p50_ms
    return Claim(promise, f"{more:.2f} ms", more <= 2.0)


def _of_cold_start(cold: ColdStart) -> Iterator[Claim]:
    answers = cold.seconds_to_first_answer
    slowest = max(answers, default=None)
    shown = ", ".join(f"{seconds:.1f}" for seconds in answers)
    yield Claim(
        "a second to fifth MiniLM-size model answers within 6 s of its file's change",
        f"{shown} s",
        slowest <= 6.0 if slowest else None,
    )
    starts = sorted(cold.replica_seconds)
    median = starts[len(starts) // 2] if starts else None
    yield Claim(
        "a replica goes from start to ready in under 2.5 s (median)",
        f"{median:.1f} s" if median else "",
        median < 2.5 if median else None,
    )
    share = cold.second_copy_share
    yield Claim(
        "a second replica adds less than 20 % of the weights' size",
        f"{share:.0%}" if share is not None else "",
        share < 0.2 if share is not None else None,
    )


def _measured(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the models and texts that were measured, in order."""
    return list(dict.fromkeys((row.model, row.texts) for row in rows if row.dtype == FLOAT32))


def _at_least(promise: str, value: float | None, bound: float) -> Claim:
    return Claim(promise, _times(value), None if value is None else value >= bound)


def _at_most(promise: str, value: float | None, bound: float) -> Claim:
    return Claim(promise, _times(value), None if value is None else value <= bound)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} x"
