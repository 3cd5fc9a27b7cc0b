"""The rows of generation as a table."""

from collections.abc import Sequence

from rich.table import Table

from bench.generation.rows import GenerationRow

NUMBERS = (
    "tokens/s", "first p50 ms", "p90", "between p50 ms", "p90", "max", "streams", "failures", "client cores",
    "server cores",
)  # fmt: skip


def table(rows: Sequence[GenerationRow]) -> Table:
    """Return a table with a line for each row."""
    shown = Table("server", "dtype", "load")
    for heading in NUMBERS:
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            row.named, row.dtype, row.load, f"{row.tokens_per_s:.1f}", f"{row.first_p50_ms:.0f}",
            f"{row.first_p90_ms:.0f}", f"{row.gap_p50_ms:.1f}", f"{row.gap_p90_ms:.1f}",
            f"{row.gap_max_ms:.0f}",
            str(row.begun), f"{row.failures} {row.problem}".strip(), f"{row.client_cpu:.2f}",
            f"{row.server_cpu:.2f}",
        )  # fmt: skip
    return shown
