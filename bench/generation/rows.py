"""What is measured of generation, row by row, and how much of it; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bench.rows import OURS

STREAMS: Final = (1, 8, 16, 32)


@dataclass(frozen=True)
class GenerationRow:
    """One server under one load; what `latest.json` holds."""

    server: str
    # The number format of its weights.
    dtype: str
    # Of the closed loop: clients that each ask for a stream when their last one has ended.
    streams: int
    tokens_per_s: float
    gap_p50_ms: float
    # Those of the loop without a server have no first text, no gaps but their mean, and no clients.
    gap_p90_ms: float = 0.0
    gap_max_ms: float = 0.0
    first_p50_ms: float = 0.0
    first_p90_ms: float = 0.0
    failures: int = 0
    problem: str = ""
    # Streams that began in the measured time.
    begun: int = 0
    tokens_per_event: float = 1.0
    # Of the open loop: requests a second, whose prompts are longer.
    rate: float = 0.0
    # How many streams the server advances together; None if it is as many as are asked for.
    at_once: int | None = None
    # What differs from the server's plain form.
    variant: str = ""
    client_cpu: float = 0.0
    server_cpu: float = 0.0

    @property
    def named(self) -> str:
        """The server with its form."""
        return f"{self.server} ({self.variant})" if self.variant else self.server

    @property
    def load(self) -> str:
        """Its load, in words."""
        if self.rate:
            return f"{self.rate:.2f} requests/s"
        return f"{self.streams} stream{'s' if self.streams > 1 else ''}"


@dataclass(frozen=True)
class GenerationPlan:
    """How much is measured."""

    streams: tuple[int, ...]
    # In what number formats; None stands for all.
    dtypes: tuple[str, ...] | None
    warm_up_seconds: float
    seconds: float
    # Of the requests a second that 16 streams of ours amount to: how many arrive at random.
    share: float | None
    # Of the loop without a server: texts in a batch.
    batches: tuple[int, ...]


FULL: Final = GenerationPlan(STREAMS, None, 3.0, 10.0, 0.3, (1, 8, 16))
QUICK: Final = GenerationPlan((8,), ("bfloat16",), 2.0, 6.0, None, ())


def of_ours(rows: Iterable[GenerationRow], streams: int, dtype: str = "") -> GenerationRow | None:
    """Return the row of ours with so many streams that has the most tokens a second, of a format if given."""
    found = [
        row
        for row in rows
        if row.server == OURS and row.streams == streams and not row.rate and dtype in ("", row.dtype)
    ]
    return max(found, key=lambda row: row.tokens_per_s, default=None)
