"""OpenTelemetry's SDK, as the standard environment variables set it up; without them there are no traces.

The SDK reads those of the resource, the sampler, the limits and the exporter by itself. Its provider is not
the process's global one, which may be Ray's.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from serve_app.telemetry.line_writer import LineWriter

SERVICE: Final = "model-endpoints"
OTLP: Final = "otlp"
CONSOLE: Final = "console"
PROTOCOL: Final = "http/protobuf"

# How long the end of a replica may take for spans that are not sent yet.
FLUSH_SECONDS: Final = 2.0

logger = logging.getLogger("ray.serve")


class TraceSettingsError(Exception):
    """The environment asks for traces that cannot be had."""


def exporters_of(environment: Mapping[str, str]) -> frozenset[str]:
    """Return which exporters the variables ask for, of OTLP and CONSOLE; raise TraceSettingsError for others.

    An endpoint alone asks for OTLP.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    default = OTLP if any(environment.get(name) for name in endpoints) else "none"
    stated = environment.get("OTEL_TRACES_EXPORTER") or default
    names = {name.strip() for name in stated.split(",")} - {"none", ""}
    if unknown := names - {OTLP, CONSOLE}:
        raise TraceSettingsError(
            f"OTEL_TRACES_EXPORTER: got {', '.join(sorted(unknown))!r}; must be {OTLP}, {CONSOLE} or none"
        )
    protocol = environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL
    )
    if OTLP in names and protocol != PROTOCOL:
        raise TraceSettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: got {protocol!r}; must be {PROTOCOL}, at port 4318 as a rule"
        )
    return frozenset(names)


class _Lines:
    """What the SDK's console exporter writes to."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def write(self, text: str) -> None:
        line = text.encode()
        self._writer.put(len(line), lambda: line)

    def flush(self) -> None:
        pass


class Tracing:
    """The tracers of a replica: one for requests, and one for batches, which are in no request's trace."""

    def __init__(self, exporters: frozenset[str], model: str, replica: str, console: LineWriter) -> None:
        resource = _resource(model, replica)
        self._providers = [TracerProvider(resource=resource, shutdown_on_exit=False)]
        # Whether a batch has a span follows from its requests.
        self._providers.append(TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False))
        for exporter in exporters:
            processor = BatchSpanProcessor(_exporter(exporter, console))
            for provider in self._providers:
                provider.add_span_processor(processor)
        self.requests, self.batches = (provider.get_tracer(SERVICE) for provider in self._providers)

    def close(self) -> None:
        """Send what is not sent yet, for FLUSH_SECONDS at most."""
        # The SDK's own limit is that of each attempt to send.
        thread = threading.Thread(target=self._flush, daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)

    def _flush(self) -> None:
        for provider in self._providers:
            provider.force_flush()


def _resource(model: str, replica: str) -> Resource:
    """Return the resource of the environment; it wins over ours, but for the replica."""
    stated = Resource.create()
    ours: dict[str, Any] = {"service.instance.id": replica}
    if model:
        ours["model_endpoints.model"] = model
    if str(stated.attributes["service.name"]).startswith("unknown_service"):
        ours["service.name"] = SERVICE
    return stated.merge(Resource(ours))


def _exporter(name: str, console: LineWriter) -> SpanExporter:
    if name == CONSOLE:
        # Of a file, the exporter needs only what _Lines has.
        lines: Any = _Lines(console)
        return ConsoleSpanExporter(out=lines, formatter=lambda span: span.to_json(indent=None))
    # Not imported before, because it takes time of each replica's start.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
