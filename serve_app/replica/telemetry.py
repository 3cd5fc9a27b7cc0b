"""Logs and traces of a replica: which of them there are, as the environment and the endpoint say.

What is off is no observer, so it takes no time of a request.
"""

import logging
import os
from collections.abc import Mapping
from typing import Final

from ray.serve import metrics

from serve_app.contract import ACCESS_LOG_VARIABLE, UserConfig
from serve_app.engine.records import Observers
from serve_app.replica.access_log import AccessLog, TraceId
from serve_app.replica.payload_log import PayloadLog
from serve_app.replica.request_spans import RequestSpans, trace_of_client
from serve_app.replica.tracing import TraceSettingsError, Tracing, exporters_of
from serve_app.telemetry.line_writer import LineWriter

# How long the end of a replica may take for lines that are not written yet.
_CLOSE_SECONDS: Final = 1.0

logger = logging.getLogger("ray.serve")


class Telemetry:
    """The logs and traces of one replica of a model, or of the gateway, which has no `model`."""

    def __init__(
        self, observers: Observers, model: str, replica: str, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._model = model
        self._replica = replica
        self._dropped = metrics.Counter(
            "model_endpoints_dropped_log_lines",
            description="Lines of access and payload logs that were not written.",
            tag_keys=("log",),
        )
        self._writers: list[LineWriter] = []
        self._tracing = self._traced(environment)
        spans = None
        if self._tracing is not None:
            spans = RequestSpans(self._tracing.requests, self._tracing.batches, model)
        if environment.get(ACCESS_LOG_VARIABLE) == "1":
            trace_id: TraceId = trace_of_client if spans is None else spans.trace_id
            log = AccessLog(self._writer("access log"), model, replica, trace_id)
            # Before the spans, which forget a request when it is over.
            observers.requests.append(log)
        if spans is not None:
            observers.requests.append(spans.request)
            observers.batches.append(spans.batch)
        self._payload_log = PayloadLog(self._writer("payload log"), observers.requests, model, replica)

    def reconfigure(self, user_config: UserConfig) -> None:
        """Apply the endpoint's settings."""
        self._payload_log.reconfigure(user_config)

    def close(self) -> None:
        """Hand over what is not sent and not written yet; takes a few seconds at most."""
        if self._tracing is not None:
            self._tracing.close()
        for writer in self._writers:
            writer.close(_CLOSE_SECONDS)

    def _writer(self, name: str) -> LineWriter:
        tags = {"log": name.partition(" ")[0]}
        writer = LineWriter(name, lambda lines: self._dropped.inc(lines, tags))
        self._writers.append(writer)
        return writer

    def _traced(self, environment: Mapping[str, str]) -> Tracing | None:
        """Return the tracers that the environment asks for. A fault there keeps no model from serving."""
        try:
            exporters = exporters_of(environment)
            if not exporters:
                return None
            return Tracing(exporters, self._model, self._replica, self._writer("traces on the console"))
        except TraceSettingsError as error:
            logger.error("there are no traces: %s", error)
        except Exception:
            logger.exception("there are no traces")
        return None
