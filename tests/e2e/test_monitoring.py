"""A real Prometheus that scrapes the cluster as the chart's monitors say: dashboard and alerts have data."""

import base64
import itertools
import time

import pytest
import yaml

from hack.commands import run
from hack.dashboard import to_json
from hack.paths import CHART
from hack.toolchain.binaries import binary_path
from tests.e2e.release import IMPATIENT, SAMPLES, VALUES
from tests.harness.prometheus import alert_selectors, dashboard_expressions, empty, scraping
from tests.harness.scraping import scrape_configs, through_api_server

MODELS = ("chat", "sentiment")
# Long enough for the next request to find most of it computed, and answered by more than one token.
QUESTION = {
    "text": "What is the capital of France? " * 8,
    "parameters": {"max_new_tokens": 4, "ignore_eos": True},
}
# Of load. Ray reports every 10 seconds, and a rate needs two reports; the operator reports usage each minute.
SECONDS = 300


@pytest.fixture(scope="module")
def chart(release):
    """What the chart would add for Prometheus' operator, whose kinds the cluster does not have."""
    kinds = "podMonitor=true,monitoring.serviceMonitor=true,monitoring.prometheusRule=true"
    text = run(
        *(binary_path("helm"), "template", "models", CHART, f"--namespace={release.namespace}"),
        *(f"--values={VALUES}", f"--values={IMPATIENT}", f"--set=monitoring.{kinds}"),
        # A rendering without the cluster makes no token; nothing here has to do with it.
        "--set=auth.secretName=none",
    )
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(chart, *kinds):
    return [document for document in chart if document["kind"] in kinds]


@pytest.fixture(scope="module")
def credentials(cluster, tmp_path_factory):
    """The API server's address, and the files with which Prometheus may ask it."""
    folder = tmp_path_factory.mktemp("credentials")
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    content = {
        "ca_file": server["certificate-authority-data"],
        "cert_file": user["client-certificate-data"],
        "key_file": user["client-key-data"],
    }
    for name, data in content.items():
        (folder / name).write_bytes(base64.b64decode(data))
    return server["server"].removeprefix("https://"), {name: str(folder / name) for name in content}


@pytest.fixture(scope="module")
def asked(release):
    """The models, which are asked until the end of the module; some requests are wrong."""
    release.apply(*(yaml.safe_load((SAMPLES / f"{name}.yaml").read_text()) for name in MODELS))
    release.wait_ready(*MODELS)
    for name in MODELS:
        release.wait_for(f"{name} answers", lambda name=name: release.answers(name))
    with release.load("sentiment", pause=0.1) as load:
        yield
    assert load.failures == []


@pytest.fixture(scope="module")
def prometheus(release, chart, credentials, asked, tmp_path_factory):
    """A Prometheus on this machine; only the way to the pods is not that of one in the cluster."""
    services = [each for each in of_kind(chart, "Service") if each["metadata"]["name"].endswith("-operator")]
    release.apply(*services)
    pods = [pod for pod in release.get("pods")["items"] if is_there(pod)]
    monitors = of_kind(chart, "PodMonitor", "ServiceMonitor")
    configs = [
        through_api_server(config, *credentials) for config in scrape_configs(monitors, pods, services)
    ]
    with scraping(tmp_path_factory.mktemp("prometheus"), configs) as server:
        yield server
    for service in services:
        release.kubectl("delete", "service", service["metadata"]["name"])


def is_there(pod):
    return pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]


def wrong_requests(release):
    """Send requests that a replica and the gateway refuse, and one to the model that generates."""
    release.http.post("/v2/models/sentiment/predict", json={"text": 5})
    release.http.post("/predict", json={"model": "nobody", "text": "x"})
    assert release.http.post("/v2/models/chat/predict", json=QUESTION).status_code == 200


def test_every_expression_of_dashboard_and_alerts_has_data(release, chart, prometheus, note):
    expressions = dashboard_expressions(to_json(), release.namespace)
    for rules in of_kind(chart, "PrometheusRule"):
        expressions |= alert_selectors(rules)
    began = time.monotonic()
    while missing := empty(prometheus, expressions):
        assert time.monotonic() - began < SECONDS, missing
        wrong_requests(release)
        time.sleep(2)
    note("expressions of dashboard and alerts", len(expressions))
    note("all of them have data after", f"{time.monotonic() - began:.0f} s of load")


def test_every_pod_is_scraped_with_the_labels_that_the_alerts_look_for(release, prometheus):
    """Workers come and go, and one without replicas runs no HAProxy."""

    def down():
        there = {pod["metadata"]["name"] for pod in release.get("pods")["items"] if is_there(pod)}
        found = prometheus.query('up{endpoint!="haproxy-metrics"} == 0')
        return there & {series["metric"]["pod"] for series in found}

    release.wait_for("every target", lambda: not down(), seconds=60)
    for kind in ("head", "worker"):
        for endpoint in ("metrics", "haproxy-metrics"):
            found = prometheus.query(f'up{{endpoint="{endpoint}", ray_io_node_type="{kind}"}} == 1')
            assert found, f"no {endpoint} of a {kind}"
    assert len(prometheus.query('up{endpoint="http"} == 1')) == 2
    profiles = {
        series["metric"]["profile"]
        for series in prometheus.query('ray_model_endpoints_model_info{application="sentiment"}')
    }
    assert profiles == {"cpu"}


def test_no_alert_about_the_platform_fires_while_all_is_well(release, chart, prometheus):
    """Those about models may, because of what other tests have asked."""
    [rules] = of_kind(chart, "PrometheusRule")
    alerts = itertools.chain.from_iterable(group["rules"] for group in rules["spec"]["groups"])
    platform = [rule for rule in alerts if rule["alert"].startswith("ModelEndpoints")]
    assert len(platform) > 5

    def firing():
        return {rule["alert"]: found for rule in platform if (found := prometheus.query(rule["expr"]))}

    release.wait_for("silence", lambda: firing() == {}, seconds=60)


def test_what_a_node_shows_is_noted(release, prometheus, note):
    """For docs/metrics.md."""
    for series in prometheus.query("scrape_samples_post_metric_relabeling"):
        labels = series["metric"]
        note(f"series of {labels['pod']}, {labels['endpoint']}", series["value"][1])
    ours = 'count by (application) ({__name__=~"ray_model_endpoints_.+"})'
    for series in prometheus.query(ours):
        note(f"ours of {series['metric']['application']}", series["value"][1])
