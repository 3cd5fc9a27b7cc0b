"""The access log: one JSON line for each request, without texts and without headers."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from pydantic_core import to_json

from serve_app.engine.records import RequestRecord
from serve_app.telemetry.line_writer import LineWriter

# What a line takes of the writer's bytes.
_LINE_BYTES: Final = 640

# Returns the trace of a request in hexadecimal digits, or nothing.
TraceId = Callable[[RequestRecord], str]


class AccessLog:
    """Observer of requests that are over. That of the gateway has no `model` of its own."""

    def __init__(self, writer: LineWriter, model: str, replica: str, trace_id: TraceId) -> None:
        self._writer = writer
        self._model = model
        self._replica = replica
        self._trace_id = trace_id

    def __call__(self, record: RequestRecord) -> None:
        # The record has the body, which must not wait in the queue.
        self._writer.put(_LINE_BYTES, partial(to_json, self._line(record)))

    def _line(self, record: RequestRecord) -> dict[str, Any]:
        reply = record.reply
        line = {
            "log": "access",
            "time": timestamp(record.began_at),
            "request_id": record.id,
            "model": self._model or record.model,
            "replica": self._replica,
            "caller": record.caller,
            "verb": record.verb,
            "transport": record.transport,
            "status": record.status,
            "code": record.code,
            "milliseconds": milliseconds(record.ended - record.arrived),
            "queue_milliseconds": milliseconds(record.queued_seconds),
            "model_milliseconds": milliseconds(record.model_seconds),
            "input_tokens": record.input_tokens,
            "output_tokens": record.output_tokens,
            "batch_sequences": record.batch_sequences,
            "request_bytes": len(record.body),
            "response_bytes": None if reply is None else len(reply.body),
            "streamed": record.streamed,
        }
        if record.first_output is not None:
            line["first_output_milliseconds"] = milliseconds(record.first_output - record.arrived)
        if trace_id := self._trace_id(record):
            line["trace_id"] = trace_id
        return line


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as RFC 3339 has them, in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(seconds: float) -> float:
    """Return them with three digits behind the point."""
    return round(seconds * 1000, 3)
