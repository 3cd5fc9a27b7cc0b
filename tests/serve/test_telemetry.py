"""Traces, the access log and the payload log of real requests, as those who collect them get them."""

import gzip
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tritonclient.grpc as triton
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.serve.service import MODELS, manifest, running

TEXT = {"text": "what nobody else may read"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector:
    """Takes spans as an OpenTelemetry collector does, over HTTP."""

    def __init__(self):
        self.spans = []
        self.resources = []
        collector = self

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    collector.resources.append(_attributes(resource.resource))
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def listening(self):
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()

    def of_trace(self, trace):
        return {span.name: span for span in list(self.spans) if span.trace_id.hex() == trace}


def _attributes(carrier):
    return {
        attribute.key: attribute.value.string_value or attribute.value.int_value
        for attribute in carrier.attributes
    }


@pytest.fixture(scope="module")
def collector():
    with Collector().listening() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collector):
    """A service with traces and an access log."""
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "sentiment.yaml").write_text(json.dumps(endpoint()))
    (folder / "causal.yaml").write_text(
        json.dumps(manifest("causal", "file:///models/random-causal", "text-generation"))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with running(folder, "--models", str(MODELS), "--access-log") as service:
            yield service


def endpoint(**spec):
    return manifest("sentiment", "file:///models/sentiment", "text-classification", **spec)


def ask(service, path="/predict", **headers):
    headers = {"x-request-id": "asked-1", "authorization": "Bearer sk-secret", **TRACEPARENT, **headers}
    answer = service.http.post(path, json={"model": "sentiment", **TEXT}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def logged(service, **members):
    """Return the lines of JSON that the command has printed, and that have these members."""
    lines = [json.loads(line) for line in service.output().splitlines() if line.startswith("{")]
    return [line for line in lines if members.items() <= line.items()]


def wait_for_lines(service, count, **members):
    return service.wait_for(
        f"{count} lines with {members}",
        lambda: (lines := logged(service, **members)) and len(lines) >= count and lines,
        seconds=10,
    )


def test_a_request_through_the_proxy_is_a_trace_with_queue_model_and_a_linked_batch(traced, collector):
    ask(traced)
    names = {"POST /v2/models/sentiment/predict", "queue", "model", "answer"}
    traced.wait_for("the spans", lambda: names <= collector.of_trace(TRACE).keys(), seconds=10)
    spans = collector.of_trace(TRACE)
    request, model = spans["POST /v2/models/sentiment/predict"], spans["model"]
    assert request.parent_span_id.hex() == PARENT
    assert {spans[name].parent_span_id for name in ("queue", "model", "answer")} == {request.span_id}
    [batch] = [span for span in collector.spans if span.span_id == model.links[0].span_id]
    assert batch.name == "batch"
    assert [link.span_id for link in batch.links] == [request.span_id]
    assert _attributes(request)["http.response.status_code"] == 200
    assert _attributes(request)["gen_ai.usage.input_tokens"] > 3
    assert request.start_time_unix_nano <= batch.start_time_unix_nano
    assert batch.end_time_unix_nano <= request.end_time_unix_nano
    assert abs(request.end_time_unix_nano / 1e9 - time.time()) < 60


def test_the_resource_is_that_of_the_environment_with_the_replica(traced, collector):
    ask(traced, **{"x-request-id": "of-a-replica"})
    [line] = wait_for_lines(traced, 1, request_id="of-a-replica")

    def resources_of(model):
        return [each for each in collector.resources if each.get("model_endpoints.model") == model]

    [resource, *_] = traced.wait_for("its spans", lambda: resources_of("sentiment"), seconds=10)
    assert resource["service.instance.id"] == line["replica"]
    assert resource["service.name"] == "model-endpoints"
    assert resource["deployment.environment.name"] == "test"


def test_the_gateway_logs_and_traces_what_it_answers_itself(traced, collector):
    trace = "6" * 32
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "authorization": "Bearer sk-secret"}
    listed = traced.http.get("/v2/models", headers={**headers, "x-request-id": "a-list"})
    unknown = {"model": "nobody", **TEXT}
    refused = traced.http.post("/predict", json=unknown, headers={"x-request-id": "no-model"})
    assert (listed.status_code, refused.status_code) == (200, 404)
    [one] = wait_for_lines(traced, 1, request_id="a-list")
    [other] = wait_for_lines(traced, 1, request_id="no-model")
    assert (one["verb"], one["status"], one["trace_id"]) == ("/v2/models", 200, trace)
    assert one["response_bytes"] == len(listed.content)
    assert (other["model"], other["verb"], other["code"]) == ("nobody", "predict", "unknown_model")
    assert one["replica"] == other["replica"]
    traced.wait_for("the span", lambda: "GET /v2/models" in collector.of_trace(trace), seconds=10)
    [instance] = {
        each["service.instance.id"] for each in collector.resources if "model_endpoints.model" not in each
    }
    assert instance == one["replica"]
    with triton.InferenceServerClient(f"127.0.0.1:{traced.grpc_port}") as client:
        client.get_server_metadata(headers={"x-request-id": "a-call"})
    [call] = wait_for_lines(traced, 1, request_id="a-call")
    assert (call["verb"], call["transport"], call["status"]) == ("ServerMetadata", "grpc", 200)
    assert TEXT["text"] not in traced.output()
    assert "sk-secret" not in traced.output()


def test_the_gateway_hands_the_trace_on(traced, collector):
    """A body in gzip is none that HAProxy can read."""
    trace = "1" * 32
    body = gzip.compress(json.dumps({"model": "sentiment", **TEXT}).encode())
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    headers |= {"traceparent": f"00-{trace}-{PARENT}-01", "x-request-id": "through-the-gateway"}
    assert traced.http.post("/predict", content=body, headers=headers).status_code == 200
    traced.wait_for("the spans", lambda: "model" in collector.of_trace(trace), seconds=10)
    [line] = wait_for_lines(traced, 1, request_id="through-the-gateway")
    assert (line["transport"], line["trace_id"]) == ("gateway", trace)


@pytest.mark.parametrize(("compression", "transport"), [(None, "grpc"), ("gzip", "gateway")])
def test_a_call_over_grpc_is_traced_and_logged_too(traced, collector, compression, transport):
    """The proxy cannot read the model's name in a compressed message, so the gateway hands it on."""
    trace = ("3" if compression is None else "4") * 32
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "x-request-id": f"by-{transport}"}
    with triton.InferenceServerClient(f"127.0.0.1:{traced.grpc_port}") as client:
        tensor = triton.InferInput("text", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"a text " * 200], dtype=object))
        client.infer("sentiment", [tensor], headers=headers, compression_algorithm=compression)
    name = "inference.GRPCInferenceService/ModelInfer"
    traced.wait_for("the spans", lambda: {name, "model"} <= collector.of_trace(trace).keys(), seconds=10)
    assert _attributes(collector.of_trace(trace)[name])["rpc.response.status_code"] == "OK"
    [line] = wait_for_lines(traced, 1, request_id=f"by-{transport}")
    assert (line["verb"], line["transport"], line["status"]) == ("ModelInfer", transport, 200)


def test_a_stream_is_over_with_its_last_token(traced, collector):
    trace = "5" * 32
    body = {"model": "causal", "prompt": "a b c", "max_tokens": 40, "stream": True, "ignore_eos": True}
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "x-request-id": "a-stream"}
    answer = traced.http.post("/v1/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    [line] = wait_for_lines(traced, 1, request_id="a-stream")
    assert (line["streamed"], line["status"], line["response_bytes"]) == (True, 200, None)
    assert 0 < line["first_output_milliseconds"] < line["milliseconds"]
    assert line["output_tokens"] > 20
    traced.wait_for("the spans", lambda: "answer" in collector.of_trace(trace), seconds=10)
    # Each token is a batch; only the first ones have spans.
    assert len(collector.of_trace(trace)["model"].links) == 16


def test_the_command_prints_a_line_for_each_request_without_texts_and_keys(traced):
    answer = ask(traced, **{"x-request-id": "asked-2"})
    assert answer.headers["x-request-id"] == "asked-2"
    [line] = wait_for_lines(traced, 1, request_id="asked-2")
    assert line["log"] == "access"
    assert (line["model"], line["verb"], line["status"]) == ("sentiment", "predict", 200)
    assert line["trace_id"] == TRACE
    assert line["milliseconds"] >= line["model_milliseconds"] > 0
    assert line["response_bytes"] == len(answer.content)
    assert TEXT["text"] not in traced.output()
    assert "sk-secret" not in traced.output()


def test_an_edit_turns_the_payload_log_on_and_off_without_a_restart(traced):
    pids = traced.replica_pids("sentiment")
    assert logged(traced, specversion="1.0") == []
    for mode, number in [("sampled", 1), ("metadata", 2), ("none", 3)]:
        traced.write("sentiment.yaml", endpoint(logging={"mode": mode, "percent": 100}))
        _ask_until_it_is(traced, mode, number)
    assert traced.replica_pids("sentiment") == pids


def _ask_until_it_is(service, mode, number):
    """Ask until requests are logged as `mode` says, which a replica hears of a little later."""

    def is_as_said():
        request_id = f"edit-{number}-{time.monotonic_ns()}"
        ask(service, **{"x-request-id": request_id})
        wait_for_lines(service, 1, request_id=request_id)
        time.sleep(0.2)
        events = logged(service, specversion="1.0", requestid=request_id)
        bodies = [event["data"].get("body") for event in events]
        if mode == "none":
            return not events
        if mode == "metadata":
            return bodies == [None, None]
        return bodies and bodies[0] == {"model": "sentiment", **TEXT} and bodies[1]["score"] > 0

    service.wait_for(f"a log that is {mode}", is_as_said, seconds=30)


def test_what_is_not_sent_yet_is_sent_when_the_replica_stops(traced, collector):
    """The last test of this service: its only model is removed right after a request."""
    trace = "2" * 32
    ask(traced, traceparent=f"00-{trace}-{PARENT}-01", **{"x-request-id": "the-last"})
    traced.remove("sentiment.yaml")
    traced.wait_for("the end of the model", lambda: not traced.replica_pids("sentiment"))
    assert "model" in collector.of_trace(trace)
    assert logged(traced, request_id="the-last")
