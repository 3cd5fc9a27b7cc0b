"""What is known of a request and of a batch: filled while they run, and handed to observers in the end.

The engine writes into the record of the request that it works for. Metrics, traces, usage and logs are made
from records, so the engine knows nothing of them.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from serve_app.http.errors import Reply

# Serve sends this logger's records to the replica's log.
logger = logging.getLogger("ray.serve")


_REFUSED: Final = (401, 403, 404)


class Transport(StrEnum):
    """How a request has come to the replica."""

    HTTP = "http"
    GRPC = "grpc"
    # By Serve's handle, from the gateway, which has read it by HTTP or gRPC.
    GATEWAY = "gateway"


@dataclass(eq=False)
class RequestRecord:
    """One request to this replica, or to the gateway.

    Times are those of time.monotonic(), and `began_at` of time.time().

    `verb` is what is asked of the model, a key of `protocols.CALLS`; `headers` have names in small letters.
    `caller` is the name of the key, and empty without one.
    """

    id: str
    verb: str
    transport: Transport = Transport.HTTP
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    caller: str = ""
    # Whether clients are asked for keys; if not, all of them are one caller.
    has_keys: bool = False
    arrived: float = field(default_factory=time.monotonic)
    began_at: float = field(default_factory=time.time)
    ended: float = 0.0
    status: int = 0
    # The code of the error, if it is one.
    code: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    # When its first sequences were in the queue, when the first of its batches began, and when its last one
    # ended.
    queued: float | None = None
    model_began: float | None = None
    model_ended: float | None = None
    # Sequences in the largest of its batches.
    batch_sequences: int = 0
    # When the first part of a stream was there.
    first_output: float | None = None
    streamed: bool = False
    body: bytes = field(default=b"", repr=False)
    # None for a stream.
    reply: Reply | None = field(default=None, repr=False)
    # Only of requests to the gateway: the model that one names, its method and route over HTTP, and whether a
    # replica has answered it.
    model: str = ""
    method: str = ""
    route: str = ""
    relayed: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the client has no known key, or one that may not ask; 404 stands for a hidden model."""
        return self.status in _REFUSED

    @property
    def seconds(self) -> float:
        """From its arrival to the end of its answer."""
        return max(0.0, self.ended - self.arrived)

    @property
    def queued_seconds(self) -> float:
        """From the queue to the first batch; 0 if it did not come so far."""
        if self.queued is None or self.model_began is None:
            return 0.0
        return max(0.0, self.model_began - self.queued)

    @property
    def model_seconds(self) -> float:
        """From the begin of its first batch to the end of its last one; 0 if it did not come so far."""
        if self.model_began is None or self.model_ended is None:
            return 0.0
        return max(0.0, self.model_ended - self.model_began)

    def note_batch(self, sequences: int, began: float, ended: float) -> None:
        """Take a batch over that it was in."""
        if self.model_began is None:
            self.model_began = began
        self.model_ended = ended
        self.batch_sequences = max(self.batch_sequences, sequences)


@dataclass(frozen=True, eq=False)
class BatchRecord:
    """One batch, or one step of generation: its requests, its sequences and their tokens, and its time."""

    requests: Sequence[RequestRecord]
    sequences: int
    tokens: int
    began: float
    seconds: float
    failed: bool = False


class Observers:
    """Who is told of requests and batches that are over. One that raises fails nothing."""

    def __init__(self) -> None:
        self.requests: list[Callable[[RequestRecord], None]] = []
        self.batches: list[Callable[[BatchRecord], None]] = []

    def tell_of_request(self, record: RequestRecord) -> None:
        _tell(self.requests, record)

    def note_batch(
        self,
        records: Iterable[RequestRecord | None],
        *,
        sequences: int,
        tokens: int,
        began: float,
        failed: bool = False,
    ) -> None:
        """Write a batch that is over now into the records of its requests, and tell of it."""
        ended = time.monotonic()
        own = tuple({record: None for record in records if record is not None})
        for record in own:
            record.note_batch(sequences, began, ended)
        _tell(self.batches, BatchRecord(own, sequences, tokens, began, ended - began, failed))


def _tell(observers: Iterable[Callable[[Any], None]], record: Any) -> None:
    for observe in observers:
        try:
            observe(record)
        except Exception:
            logger.exception("an observer of requests fails")


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


def current_record() -> RequestRecord | None:
    """Return the record of the request that this task answers; None outside of requests."""
    return _current.get()


def set_current_record(record: RequestRecord) -> None:
    """Make it the record of the request that this task answers, to its end."""
    _current.set(record)
