"""Spans of requests and batches, as OpenTelemetry's SDK hands them to an exporter."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from serve_app.engine.records import Transport
from serve_app.protocols import CALLS
from serve_app.replica.request_spans import MAX_BATCHES, RequestSpans
from tests.unit.recorded import BEGAN_AT, KEY, batch, over, record, running

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
DEFAULT = ParentBased(ALWAYS_ON)


class Spans:
    """The observer, and what has been exported."""

    def __init__(self, sampler=DEFAULT):
        self._exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(self._exporter)
        providers = [TracerProvider(sampler), TracerProvider(ALWAYS_ON)]
        for provider in providers:
            provider.add_span_processor(processor)
        self.observer = RequestSpans(*(provider.get_tracer("test") for provider in providers), "sentiment")

    @property
    def all(self):
        return self._exporter.get_finished_spans()

    def named(self, name):
        return [span for span in self.all if span.name == name]

    @property
    def request(self):
        [span] = [span for span in self.all if span.kind is SpanKind.SERVER]
        return span


@pytest.fixture
def spans():
    return Spans()


def linked(span):
    return [link.context.span_id for link in span.links]


def times(span):
    """Return begin and end in milliseconds after the arrival of the request."""
    return tuple(round((at / 1e9 - BEGAN_AT) * 1000, 2) for at in (span.start_time, span.end_time))


def test_a_request_has_its_parts_as_children_with_the_times_that_they_had(spans):
    spans.observer.request(record())
    assert spans.request.name == "POST /v2/models/sentiment/predict"
    assert spans.request.parent is None
    assert times(spans.request) == (0, 50)
    assert {span.name: times(span) for span in spans.all if span is not spans.request} == {
        "queue": (2, 12),
        "model": (12, 42),
        "answer": (42, 50),
    }
    for name in ("queue", "model", "answer"):
        [span] = spans.named(name)
        assert span.parent.span_id == spans.request.context.span_id


def test_it_is_a_child_of_what_the_client_names(spans):
    spans.observer.request(record(headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}))
    assert f"{spans.request.context.trace_id:032x}" == TRACE
    assert f"{spans.request.parent.span_id:016x}" == PARENT
    assert {span.context.trace_id for span in spans.all} == {int(TRACE, 16)}


@pytest.mark.parametrize("header", ["", "00", f"00-{TRACE}-{PARENT}", "x" * 100_000, "00-\x00"])
def test_a_header_that_is_none_makes_a_trace_of_its_own(spans, header):
    spans.observer.request(record(headers={"traceparent": header}))
    assert spans.request.parent is None


def test_attributes_are_those_of_the_conventions(spans):
    spans.observer.request(record(verb="v1/chat/completions", output_tokens=7))
    assert dict(spans.request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/sentiment/v1/chat/completions",
        "http.response.status_code": 200,
        "http.request.body.size": 24,
        "http.response.body.size": 21,
        "gen_ai.request.model": "sentiment",
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 7,
        "model_endpoints.request_id": "r1",
        "model_endpoints.caller": "team-a",
        "model_endpoints.transport": "http",
        "model_endpoints.batch.sequences": 2,
    }


def test_a_call_of_grpc_has_those_of_rpc(spans):
    spans.observer.request(record(verb="ModelInfer", transport=Transport.GRPC, status=429, code="overloaded"))
    assert spans.request.name == "inference.GRPCInferenceService/ModelInfer"
    about = {name: value for name, value in spans.request.attributes.items() if name.startswith("rpc.")}
    assert about == {
        "rpc.system.name": "grpc",
        "rpc.method": "inference.GRPCInferenceService/ModelInfer",
        "rpc.response.status_code": "RESOURCE_EXHAUSTED",
    }


@pytest.mark.parametrize(
    ("verb", "status", "expected"),
    [
        ("predict", 200, StatusCode.UNSET),
        ("predict", 422, StatusCode.UNSET),
        ("predict", 408, StatusCode.UNSET),
        ("predict", 503, StatusCode.ERROR),
        ("ModelInfer", 404, StatusCode.UNSET),
        ("ModelInfer", 408, StatusCode.ERROR),
        ("ModelInfer", 418, StatusCode.UNSET),
    ],
)
def test_only_what_the_server_is_at_fault_for_is_an_error(spans, verb, status, expected):
    spans.observer.request(record(verb=verb, status=status, code="some_code" if status != 200 else ""))
    assert spans.request.status.status_code is expected
    assert spans.request.attributes.get("error.type") == ("some_code" if status != 200 else None)


@pytest.mark.parametrize("verb", CALLS)
def test_each_verb_has_a_name(spans, verb):
    spans.observer.request(record(verb=verb))
    assert " /v2/models/sentiment" in spans.request.name or "inference." in spans.request.name


def test_a_refused_request_has_no_parts(spans):
    spans.observer.request(record(status=401, queued=None, model_began=None, model_ended=None))
    assert len(spans.all) == 1


def test_neither_texts_nor_keys_are_in_a_span(spans):
    request = running()
    spans.observer.batch(batch(request))
    spans.observer.request(over(request))
    told = "".join(span.to_json() for span in spans.all)
    assert "secret" not in told
    assert KEY not in told


def test_a_batch_is_linked_to_its_requests_and_they_to_it(spans):
    requests = [running("r1"), running("r2")]
    spans.observer.batch(batch(*requests))
    for request in requests:
        spans.observer.request(over(request))
    [span] = spans.named("batch")
    servers = [span for span in spans.all if span.kind is SpanKind.SERVER]
    assert linked(span) == [server.context.span_id for server in servers]
    assert [linked(model) for model in spans.named("model")] == [[span.context.span_id]] * 2
    # It belongs to none of their traces.
    assert span.context.trace_id not in {server.context.trace_id for server in servers}
    assert times(span) == (12, 42)
    assert dict(span.attributes) == {
        "gen_ai.request.model": "sentiment",
        "model_endpoints.batch.requests": 2,
        "model_endpoints.batch.sequences": 4,
        "model_endpoints.batch.tokens": 16,
    }


def test_a_batch_that_failed_says_so(spans):
    spans.observer.batch(batch(running(), failed=True))
    [span] = spans.named("batch")
    assert span.status.status_code is StatusCode.ERROR


def test_a_batch_without_requests_has_no_span(spans):
    spans.observer.batch(batch())
    assert spans.all == ()


def test_a_request_that_has_ended_before_its_batch_is_not_begun_again(spans):
    request = running()
    spans.observer.batch(batch(request))
    spans.observer.request(over(request))
    spans.observer.batch(batch(request))
    assert len(spans.named("batch")) == 1
    assert spans.observer._begun == {}


def test_a_long_generation_has_a_bounded_number_of_batches(spans):
    long, short = running("long"), running("short")
    for _ in range(3 * MAX_BATCHES):
        spans.observer.batch(batch(long))
    assert len(spans.named("batch")) == MAX_BATCHES
    spans.observer.batch(batch(long, short))
    assert len(spans.named("batch")) == MAX_BATCHES + 1


def test_what_is_not_sampled_has_no_spans():
    spans = Spans(ALWAYS_OFF)
    request = running()
    spans.observer.batch(batch(request))
    spans.observer.request(over(request))
    assert spans.all == ()
    assert spans.observer._begun == {}


def test_the_client_decides_what_is_sampled():
    spans = Spans()
    spans.observer.request(record(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}))
    assert spans.all == ()


def test_a_batch_is_sampled_if_one_of_its_requests_is():
    spans = Spans(ParentBased(ALWAYS_OFF))
    sampled = running("r1", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    other = running("r2")
    spans.observer.batch(batch(sampled, other))
    for request in (sampled, other):
        spans.observer.request(over(request))
    [span] = spans.named("batch")
    assert linked(span) == [spans.request.context.span_id]
    assert span.attributes["model_endpoints.batch.requests"] == 2


def test_parts_are_sampled_like_their_request():
    spans = Spans(TraceIdRatioBased(0.5))
    for _ in range(100):
        spans.observer.request(record())
    servers = [span for span in spans.all if span.kind is SpanKind.SERVER]
    assert 0 < len(servers) < 100
    assert len(spans.all) == 4 * len(servers)


def test_the_trace_of_a_request_is_known_before_it_is_over(spans):
    request = running()
    trace_id = spans.observer.trace_id(request)
    spans.observer.request(over(request))
    assert f"{spans.request.context.trace_id:032x}" == trace_id
