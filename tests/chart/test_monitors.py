"""What Prometheus makes of the monitors: which ports of which pods it asks, and under which labels."""

import pytest

from tests.chart.rendering import EVERYTHING, of_kind, operator_pod, ray_pods, template
from tests.harness.prometheus import scraping
from tests.harness.scraping import scrape_configs

RAY = {"job": "here/models-model-endpoints-ray", "namespace": "here", "ray_io_cluster": "one"}
OPERATOR = {
    "job": "models-model-endpoints-operator",
    "namespace": "here",
    "service": "models-model-endpoints-operator",
}


@pytest.fixture(scope="module")
def chart():
    return template(*EVERYTHING)


def pod(name, template, **labels):
    """Return a pod as it runs."""
    own = {f"ray.io/{key.replace('_', '-')}": value for key, value in labels.items()}
    metadata = {"name": name, "namespace": "here", "labels": template["metadata"]["labels"] | own}
    return {
        "metadata": metadata,
        "spec": template["spec"],
        "status": {"phase": "Running", "podIP": "127.0.0.1"},
    }


@pytest.fixture(scope="module")
def targets(chart, tmp_path_factory):
    """Return the labels of each target of a real Prometheus, and the parameters that it asks with."""
    head, worker = ray_pods(chart)
    operator, _ = operator_pod(chart)
    others = pod("other", head, cluster="two", node_type="head", group="headgroup")
    others["metadata"]["labels"]["app.kubernetes.io/instance"] = "another-release"
    pods = [
        pod("head", head, cluster="one", node_type="head", group="headgroup"),
        pod("worker", worker, cluster="one", node_type="worker", group="cpu"),
        pod("operator", operator),
        others,
    ]
    monitors = of_kind(chart, "PodMonitor") + of_kind(chart, "ServiceMonitor")
    configs = scrape_configs(monitors, pods, of_kind(chart, "Service"))
    with scraping(tmp_path_factory.mktemp("prometheus"), configs) as server:
        return {
            (target["labels"]["pod"], target["labels"]["endpoint"]): target for target in server.targets()
        }


def test_ray_and_its_proxy_are_asked_on_each_pod_of_the_release_and_the_operator(targets):
    assert targets.keys() == {
        ("head", "metrics"),
        ("head", "haproxy-metrics"),
        ("worker", "metrics"),
        ("worker", "haproxy-metrics"),
        ("operator", "http"),
    }


@pytest.mark.parametrize("endpoint", ["metrics", "haproxy-metrics"])
def test_series_of_ray_have_the_labels_that_dashboard_and_alerts_look_for(targets, endpoint):
    head = RAY | {"ray_io_node_type": "head", "profile": "headgroup", "container": "ray-head"}
    worker = RAY | {"ray_io_node_type": "worker", "profile": "cpu", "container": "ray-worker"}
    for name, labels in {"head": head, "worker": worker}.items():
        found = targets[name, endpoint]["labels"]
        assert labels | {"pod": name, "endpoint": endpoint} == {
            key: value for key, value in found.items() if key != "instance"
        }


def test_series_of_the_operator_have_the_labels_that_dashboard_and_alerts_look_for(targets):
    assert OPERATOR.items() <= targets["operator", "http"]["labels"].items()


def test_of_haproxy_only_what_has_few_series_is_asked(targets):
    assert targets["worker", "haproxy-metrics"]["scrapeUrl"] == "http://127.0.0.1:9101/metrics?scope=frontend"
    assert targets["worker", "metrics"]["scrapeUrl"] == "http://127.0.0.1:8080/metrics"


@pytest.mark.parametrize(("options", "value"), [([], None), (["--set=monitoring.perKey=true"], "1")])
def test_keys_are_counted_only_where_that_is_asked_for(options, value):
    for each in ray_pods(template(*options)):
        [container] = each["spec"]["containers"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert variables.get("MODEL_ENDPOINTS_METRICS_PER_KEY") == value
