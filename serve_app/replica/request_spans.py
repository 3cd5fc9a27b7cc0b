"""Spans of requests and batches, made when a request or a batch is over, with the times that it had.

A request is a child of what the client's `traceparent` names, and has the children `queue`, `model` and
`answer`. A batch is a trace of its own with links to its requests; the request's `model` has links to its
batches. A batch is over before its requests, so the span of a request is begun at its first batch. Names and
attributes are those of OpenTelemetry's semantic conventions; there are neither texts nor keys in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from grpc import StatusCode as GrpcCode
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve_app.contract import route_prefix
from serve_app.engine.records import BatchRecord, RequestRecord
from serve_app.protocols import INFO, METADATA
from serve_app.protocols.generation.chat_completions import CHAT_COMPLETIONS
from serve_app.protocols.generation.completions import COMPLETIONS
from serve_app.rpc.messages import METHODS, SERVICE
from serve_app.rpc.service import STATUS_CODES

# A generation has a batch for each token; those beyond so many of a request have no spans.
MAX_BATCHES: Final = 16

_NO_CONTEXT: Final = Context()
_PROPAGATOR: Final = TraceContextTextMapPropagator()

# The verbs that OpenTelemetry has a name for.
_OPERATIONS: Final[Mapping[str, str]] = {
    CHAT_COMPLETIONS: "chat",
    COMPLETIONS: "text_completion",
    "generate": "text_completion",
    "generate_stream": "text_completion",
    "embed": "embeddings",
    "v1/embeddings": "embeddings",
}


@dataclass
class _Begun:
    """The span of a request that is not over, and its batches so far."""

    span: Span
    batches: list[SpanContext] = field(default_factory=list)

    @property
    def is_sampled(self) -> bool:
        return self.span.get_span_context().trace_flags.sampled


class RequestSpans:
    """Observer of batches and of requests that are over."""

    def __init__(self, requests: Tracer, batches: Tracer, model: str) -> None:
        """`batches` samples everything; whether a batch has a span follows from its requests.

        The gateway's has no `model`: its requests name one, or none.
        """
        self._requests = requests
        self._batches = batches
        self._model = model
        self._begun: dict[int, _Begun] = {}

    def trace_id(self, record: RequestRecord) -> str:
        """Return the trace of a request that is not handed to `request` yet, in hexadecimal digits."""
        return f"{self._begin(record).span.get_span_context().trace_id:032x}"

    def batch(self, batch: BatchRecord) -> None:
        """Make the span of a batch, if one of its requests is sampled and has few batches so far."""
        # A request may have ended before its batch, and has handed in its span.
        running = [record for record in batch.requests if not record.ended]
        sampled = [begun for begun in map(self._begin, running) if begun.is_sampled]
        if all(len(begun.batches) >= MAX_BATCHES for begun in sampled):
            return
        began = _nanoseconds(running[0], batch.began)
        span = self._batches.start_span(
            "batch",
            _NO_CONTEXT,
            attributes={
                "gen_ai.request.model": self._model,
                "model_endpoints.batch.requests": len(batch.requests),
                "model_endpoints.batch.sequences": batch.sequences,
                "model_endpoints.batch.tokens": batch.tokens,
            },
            links=[Link(begun.span.get_span_context()) for begun in sampled],
            start_time=began,
        )
        if batch.failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(began + int(batch.seconds * 1e9))
        for begun in sampled:
            begun.batches.append(span.get_span_context())

    def request(self, record: RequestRecord) -> None:
        """Make the spans of a request that is over."""
        begun = self._begin(record)
        del self._begun[id(record)]
        if not begun.is_sampled:
            return
        span = begun.span
        span.set_attributes(_attributes(record, self._model))
        if _is_fault(record):
            span.set_status(Status(StatusCode.ERROR))
        self._parts(record, begun)
        span.end(_nanoseconds(record, record.ended))

    def _begin(self, record: RequestRecord) -> _Begun:
        begun = self._begun.get(id(record))
        if begun is None:
            # Whoever is refused does not say what is traced.
            headers = {} if record.is_refused else record.headers
            span = self._requests.start_span(
                _name(record, self._model),
                _PROPAGATOR.extract(headers, _NO_CONTEXT),
                SpanKind.SERVER,
                start_time=_nanoseconds(record, record.arrived),
            )
            begun = self._begun[id(record)] = _Begun(span)
        return begun

    def _parts(self, record: RequestRecord, begun: _Begun) -> None:
        """Make the spans of what the request has waited for; a refused one has waited for nothing."""
        began, ended = record.model_began, record.model_ended
        if began is None:
            return
        parent = set_span_in_context(begun.span, _NO_CONTEXT)
        parts = [("queue", began - record.queued_seconds, began)]
        parts.append(("model", began, record.ended if ended is None else ended))
        if ended is not None:
            parts.append(("answer", ended, record.ended))
        for name, start, end in parts:
            links = [Link(context) for context in begun.batches] if name == "model" else ()
            span = self._requests.start_span(
                name, parent, links=links, start_time=_nanoseconds(record, start)
            )
            span.end(_nanoseconds(record, end))


def trace_of_client(record: RequestRecord) -> str:
    """Return the trace that the client's `traceparent` names, in hexadecimal digits; empty without one."""
    context = get_current_span(_PROPAGATOR.extract(record.headers, _NO_CONTEXT)).get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def _nanoseconds(record: RequestRecord, monotonic: float) -> int:
    """Return the wall-clock time, in nanoseconds since 1970, of a monotonic time near the request."""
    return int((record.began_at + monotonic - record.arrived) * 1e9)


def _is_rpc(record: RequestRecord) -> bool:
    return record.verb in METHODS


def _route(record: RequestRecord, model: str) -> str:
    if record.method:
        # Of the gateway, which knows the route without what clients put into it.
        return record.route
    verb = "" if record.verb == METADATA else record.verb
    return f"{route_prefix(model)}/{verb}".rstrip("/")


def _method(record: RequestRecord) -> str:
    return record.method or ("GET" if record.verb in (METADATA, INFO) else "POST")


def _name(record: RequestRecord, model: str) -> str:
    if _is_rpc(record):
        return f"{SERVICE}/{record.verb}"
    return f"{_method(record)} {_route(record, model)}".rstrip()


def _is_fault(record: RequestRecord) -> bool:
    """Whether the server is at fault. Over gRPC, a time that is exceeded counts as its fault, too."""
    return record.status >= 500 or (_is_rpc(record) and record.status == 408)


def _attributes(record: RequestRecord, model: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "gen_ai.request.model": model or record.model,
        "model_endpoints.request_id": record.id,
        "model_endpoints.caller": record.caller,
        "model_endpoints.transport": record.transport,
        "model_endpoints.batch.sequences": record.batch_sequences,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
    }
    if record.code:
        attributes["error.type"] = record.code
    if record.verb in _OPERATIONS:
        attributes["gen_ai.operation.name"] = _OPERATIONS[record.verb]
    return attributes | (_of_rpc(record) if _is_rpc(record) else _of_http(record, model))


def _of_rpc(record: RequestRecord) -> dict[str, Any]:
    code = GrpcCode.OK if record.status == 200 else STATUS_CODES.get(record.status, GrpcCode.INTERNAL)
    return {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/{record.verb}",
        "rpc.response.status_code": code.name,
    }


def _of_http(record: RequestRecord, model: str) -> dict[str, Any]:
    size = {} if record.reply is None else {"http.response.body.size": len(record.reply.body)}
    return {
        "http.request.method": _method(record),
        "http.route": _route(record, model),
        "http.response.status_code": record.status,
        "http.request.body.size": len(record.body),
        **size,
    }
