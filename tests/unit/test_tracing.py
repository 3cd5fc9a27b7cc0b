"""Which traces the environment asks for, and what the SDK makes of it."""

import json
import logging
import subprocess
import sys
import time

import pytest

from serve_app.contract import ACCESS_LOG_VARIABLE, LINES_VARIABLE, UserConfig
from serve_app.engine.records import Observers
from serve_app.replica.telemetry import Telemetry
from serve_app.replica.tracing import FLUSH_SECONDS, TraceSettingsError, exporters_of
from tests.unit.recorded import KEY, batch, over, record, running

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, set()),
        ({"OTEL_SERVICE_NAME": "models"}, set()),
        (ENDPOINT, {"otlp"}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, {"otlp"}),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, {"otlp"}),
        ({"OTEL_TRACES_EXPORTER": "console"}, {"console"}),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, {"otlp", "console"}),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, set()),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": ""}, {"otlp"}),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, set()),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, {"otlp"}),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, {"otlp"}),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"console"}),
    ],
)
def test_there_are_traces_only_if_a_variable_asks_for_them(environment, expected):
    assert exporters_of(environment) == expected


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: got 'zipkin'; must be otlp, console or none",
        ),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: got 'grpc'; must be http/protobuf, at port 4318 as a rule",
        ),
    ],
)
def test_what_cannot_be_had_is_said_and_the_model_serves(environment, sentence, caplog):
    with pytest.raises(TraceSettingsError, match=sentence):
        exporters_of(environment)
    observers = Observers()
    Telemetry(observers, "sentiment", "a1b2", environment)
    assert (observers.requests, observers.batches) == ([], [])
    assert sentence in caplog.text


def test_nothing_is_on_the_way_of_a_request_by_default():
    observers = Observers()
    telemetry = Telemetry(observers, "sentiment", "a1b2", {})
    telemetry.reconfigure(UserConfig())
    assert (observers.requests, observers.batches) == ([], [])


def test_without_traces_the_exporter_takes_no_time_of_a_start():
    code = """
import sys
import serve_app.deployment
assert not [name for name in sys.modules if name.startswith("opentelemetry.exporter.otlp")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    monkeypatch.setenv(LINES_VARIABLE, str(path))
    return path


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_traces_and_logs_of_a_request_agree(path, monkeypatch):
    """Each in lines of the same output; the SDK obeys the variables."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "team-models")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.namespace.name=here,service.instance.id=given")
    environment = {"OTEL_TRACES_EXPORTER": "console", ACCESS_LOG_VARIABLE: "1"}
    observers = Observers()
    telemetry = Telemetry(observers, "sentiment", "a1b2", environment)
    telemetry.reconfigure(UserConfig(payload_log="metadata"))
    request = running()
    for observe in observers.batches:
        observe(batch(request))
    observers.tell_of_request(over(request))
    telemetry.close()
    lines = lines_of(path)
    [access] = [line for line in lines if line.get("log") == "access"]
    events = [line for line in lines if "specversion" in line]
    spans = {line["name"]: line for line in lines if "resource" in line}
    request_span = spans["POST /v2/models/sentiment/predict"]
    assert request_span["context"]["trace_id"] == f"0x{access['trace_id']}"
    assert spans["batch"]["links"][0]["context"]["span_id"] == request_span["context"]["span_id"]
    assert [event["requestid"] for event in events] == ["r1", "r1"]
    assert request_span["resource"]["attributes"] == spans["batch"]["resource"]["attributes"]
    resource = request_span["resource"]["attributes"]
    assert resource["service.name"] == "team-models"
    assert resource["k8s.namespace.name"] == "here"
    assert resource["service.instance.id"] == "a1b2"
    assert KEY not in path.read_text()


def test_a_sampler_of_the_environment_is_obeyed(path, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    observers = Observers()
    telemetry = Telemetry(observers, "sentiment", "a1b2", {"OTEL_TRACES_EXPORTER": "console"})
    observers.tell_of_request(record())
    telemetry.close()
    assert not path.exists()


def test_a_collector_that_is_gone_holds_up_neither_requests_nor_the_end(monkeypatch, caplog):
    """Port 9 refuses connections; the exporter would try for many seconds."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    observers = Observers()
    telemetry = Telemetry(observers, "sentiment", "a1b2", {"OTEL_TRACES_EXPORTER": "otlp"})
    caplog.set_level(logging.CRITICAL, "opentelemetry")
    for number in range(5000):
        observers.tell_of_request(record(f"r{number}"))
    began = time.monotonic()
    telemetry.close()
    assert time.monotonic() - began < 2 * FLUSH_SECONDS
