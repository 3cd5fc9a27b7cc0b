"""A real Prometheus that scrapes Ray and HAProxy: the chart's expressions have data, and series have an end.

What the operator shows is tried on a cluster, in tests/e2e/test_monitoring.py.
"""

import re
import time
from collections import Counter

import httpx
import psutil
import pytest

from hack.dashboard import to_json
from serve_app.contract import Task
from tests.chart.rendering import EVERYTHING, of_kind, template
from tests.harness.prometheus import alert_selectors, dashboard_expressions, empty, scraping
from tests.harness.scraping import endpoints_of, labels_of_job, snake_case
from tests.load import load_on
from tests.serve import tiny_models
from tests.serve.service import GOOD, manifest

NAMESPACE = "here"
# Ray reports every 10 seconds, and a rate needs two reports.
SECONDS = 90
# No other test has an endpoint of this name, whose requests would count too.
GENERATES = "storyteller"
# Long enough for the next request to find most of it computed.
CAUSAL = {"text": "the goal was " * 8, "parameters": {"max_new_tokens": 8, "ignore_eos": True}}
# Of one replica; see docs/metrics.md.
MOST_SERIES = 140


@pytest.fixture(scope="module")
def chart():
    return template(*EVERYTHING)


@pytest.fixture(scope="module")
def ports(service):
    """The ports of Ray's metrics and of HAProxy's, by the names that they have in the chart."""
    command = psutil.Process(service.process.pid)
    processes = command.children(recursive=True)
    [agent] = [process for process in processes if process.cmdline()[0] == "ray::DashboardAgent"]
    [port] = [
        connection.laddr.port
        for connection in agent.net_connections()
        if connection.status == "LISTEN" and "ray_" in _text(connection.laddr.port)
    ]
    [ray] = [process for process in processes if "endpoint_operator.local.ray_process" in process.cmdline()]
    return {"metrics": port, "haproxy-metrics": ray.environ()["RAY_SERVE_HAPROXY_METRICS_PORT"]}


def _text(port, **params):
    """Return the metrics at a port of this machine; nothing if it speaks no HTTP."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", params=params, timeout=10).text
    except httpx.HTTPError:
        return ""


@pytest.fixture(scope="module")
def prometheus(chart, ports, tmp_path_factory):
    [monitor] = of_kind(chart, "PodMonitor")
    configs = [
        {
            "job_name": endpoint["port"],
            "static_configs": [
                {
                    "targets": [f"127.0.0.1:{ports[endpoint['port']]}"],
                    # The others are of pods.
                    "labels": labels_of_job(monitor, endpoint)
                    | {"ray_io_node_type": "head", "ray_io_cluster": "a", "profile": "cpu"},
                }
            ],
            "params": endpoint.get("params", {}),
            "metric_relabel_configs": [snake_case(each) for each in endpoint.get("metricRelabelings", [])],
        }
        for endpoint in endpoints_of(monitor)
    ]
    with scraping(tmp_path_factory.mktemp("prometheus"), configs, seconds=2) as server:
        yield server


@pytest.fixture(scope="module")
def asked(service, tmp_path_factory):
    """Load on a model that generates and on one that does not, and some requests that are refused."""
    folder = tiny_models.write(Task.TEXT_GENERATION, tmp_path_factory.mktemp("causal") / "causal")
    service.write("causal.yaml", manifest(GENERATES, f"file://{folder}", "text-generation"))
    service.wait_ready(GENERATES)
    with (
        load_on(service.url("/v2/models/sentiment/predict"), GOOD) as plain,
        load_on(service.url(f"/v2/models/{GENERATES}/predict"), CAUSAL, clients=1) as causal,
    ):
        yield
    service.remove("causal.yaml")
    service.wait_for("its removal", lambda: GENERATES not in service.models())
    assert plain.failures == causal.failures == []


def refused(service):
    """Send requests that are errors, one of them with a method that a client has invented."""
    service.http.post("/v2/models/sentiment/predict", json={"text": 5})
    service.http.post("/predict", json={"model": "nobody", "text": "x"})
    assert service.http.request("INVENTED", "/v2/models/sentiment/predict").status_code == 400


def test_every_expression_of_dashboard_and_alerts_has_data(service, prometheus, chart, asked):
    [rules] = of_kind(chart, "PrometheusRule")
    expressions = dashboard_expressions(to_json(), NAMESPACE) | alert_selectors(rules)
    ours = {
        name: each
        for name, each in expressions.items()
        if "model_endpoints_operator" not in each and "model_endpoints_endpoint" not in each
    }
    assert len(ours) > 25
    deadline = time.monotonic() + SECONDS
    while missing := empty(prometheus, ours):
        assert time.monotonic() < deadline, missing
        refused(service)
        time.sleep(1)


def test_what_is_counted_is_what_clients_have_sent(service, prometheus, asked):
    def counted():
        labels = f'application="{GENERATES}", protocol="generate", status="200"'
        series = prometheus.query(f"ray_model_endpoints_requests_total{{{labels}}}")
        return sum(float(each["value"][1]) for each in series)

    for _ in range(7):
        answer = service.http.post(f"/v2/models/{GENERATES}/generate", json={"text_input": "a text"})
        assert answer.status_code == 200
    service.wait_for("the count", lambda: counted() == 7, SECONDS)
    seconds = "ray_model_endpoints_request_seconds"
    times = prometheus.value(f'{seconds}_count{{application="{GENERATES}"}}')
    largest = prometheus.value(f'{seconds}_bucket{{application="{GENERATES}", le="+Inf"}}')
    assert times == largest >= 7


def test_series_have_an_end(service, ports, asked, record_property):
    refused(service)
    lines = [line for line in _text(ports["metrics"]).splitlines() if line and not line.startswith("#")]
    assert 'method="INVENTED"' not in "\n".join(lines)
    found = Counter()
    for line in lines:
        application = re.search(r'application="([^"]*)"', line)
        name = application[1] if application else ""
        found[name, line.startswith("ray_model_endpoints_")] += 1
    for name in ("sentiment", GENERATES):
        record_property(f"series of {name}: ours, Ray's", f"{found[name, True]}, {found[name, False]}")
        assert 50 < found[name, True] <= MOST_SERIES
    [frontends] = [_text(ports["haproxy-metrics"], scope="frontend")]
    kept = re.findall(r"^haproxy_frontend_http_responses_total\{.*", frontends, re.M)
    record_property("series of HAProxy's frontends with answers by status", len(kept))
    assert "haproxy_server_" not in frontends
