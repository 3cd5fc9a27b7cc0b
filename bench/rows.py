"""What is measured, row by row: what to run, what came out, and how rows compare; pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

FLOAT32: Final = "float32"
OURS: Final = "ours"
IN_PROCESS: Final = "in-process"
ARTICLE: Final = "article"
PEERS: Final = ("fastapi", "litserve", "bentoml", "mosec", "kserve", "infinity", "infinity-onnx")
# The route of embeddings by OpenAI's protocol, with vectors in base64.
OPENAI: Final = "/v1/embeddings"
CLIENTS: Final = (1, 16, 64)
# Shares of our own measured capacity at which requests arrive whatever the answers do.
OPEN_SHARES: Final = (0.5, 0.9)


@dataclass(frozen=True)
class Row:
    """One server under one load; what `latest.json` holds."""

    server: str
    model: str
    dtype: str
    texts: str
    load: str
    clients: int
    rps: float
    p50_ms: float
    p99_ms: float
    failures: int
    p90_ms: float = 0.0
    requests: int = 0
    # Cores that the load generator used.
    client_cpu: float = 0.0
    # Cores that all processes of the server used: tells more than requests/s when others use them too.
    server_cpu: float = 0.0
    # Of the open loop: the share of our capacity, and the requests a second that it amounts to.
    share: float = 0.0
    offered_rps: float = 0.0
    route: str = "direct"
    # What differs from the server's plain form.
    variant: str = ""
    # Whether the number format is what the server chooses when nothing is said.
    default_dtype: bool = False

    @property
    def place(self) -> tuple[str, str, str, str, int, float]:
        """What two rows must have in common to be compared."""
        return (self.model, self.dtype, self.texts, self.load, self.clients, self.share)


@dataclass(frozen=True)
class Plan:
    """How much is measured of each model."""

    texts: tuple[str, ...]
    clients: tuple[int, ...]
    shares: tuple[float, ...]
    # Measured seconds by kind of text; mixed texts take several times as long.
    seconds: dict[str, float]
    # Whether peers get the open loads too, and servers are measured in more than their plain form.
    thorough: bool = False


FULL: Final = {
    "distilbert": Plan(("short", "mixed"), CLIENTS, OPEN_SHARES, {"short": 4.5, "mixed": 7.0}, thorough=True),
    "sentiment": Plan(("short", "mixed"), CLIENTS, OPEN_SHARES, {"short": 4.0, "mixed": 5.0}),
    "minilm": Plan(("short", "mixed"), CLIENTS, (), {"short": 4.0, "mixed": 5.0}),
    "ranker": Plan(("short", "mixed"), CLIENTS, (), {"short": 4.0, "mixed": 5.0}),
}
QUICK: Final = {"distilbert": Plan(("short",), CLIENTS, (0.9,), {"short": 2.0})}


def find(rows: Iterable[Row], **wanted: object) -> Row | None:
    """Return the first row whose members are as wanted, of the plain form unless said otherwise."""
    wanted = {"variant": "", "route": "direct"} | wanted
    for row in rows:
        if all(getattr(row, name) == value for name, value in wanted.items()):
            return row
    return None


def beside(rows: Sequence[Row], row: Row, server: str) -> Row | None:
    """Return the row of `server` under the same load."""
    return next((each for each in _plain(rows) if each.server == server and each.place == row.place), None)


def ratio(rows: Sequence[Row], row: Row) -> float | None:
    """Return the row's requests a second over ours under the same load."""
    ours = beside(rows, row, OURS)
    return row.rps / ours.rps if ours and ours.rps else None


def limits(rows: Sequence[Row], model: str, dtype: str, texts: str) -> Iterator[float]:
    """Yield all rates of the in-process loop for a model, whatever its windows."""
    for row in rows:
        if (row.server, row.model, row.dtype, row.texts) == (IN_PROCESS, model, dtype, texts):
            yield row.rps


def _plain(rows: Iterable[Row]) -> Iterator[Row]:
    return (row for row in rows if not row.variant and row.route == "direct")
