"""The operator's metrics: what they show, and that the chart and docs/operator.md name no others."""

import re
from pathlib import Path

from endpoint_operator.api.status import ModelEndpointStatus, Reason, Usage
from endpoint_operator.controller.metrics import Metrics

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "model-endpoints"


def exposition():
    metrics = Metrics()
    metrics.show_endpoints("models", {"a": Reason.SERVING, "b": Reason.EXCEEDS_PROFILE})
    usage = Usage(compute_seconds=1.5, replica_seconds=60.0)
    metrics.show_usages(
        "models",
        {
            "a": ModelEndpointStatus(usage=usage.model_copy(update={"cost": 0.25})),
            "b": ModelEndpointStatus(usage=usage),
            "c": ModelEndpointStatus(),
        },
    )
    return metrics.exposition(1_700_000_000.5).decode()


def test_endpoints_are_counted_by_reason():
    lines = exposition().splitlines()
    assert 'model_endpoints_operator_endpoints{reason="ExceedsProfile"} 1.0' in lines
    assert 'model_endpoints_operator_endpoints{reason="ProfileNotFound"} 0.0' in lines
    assert "model_endpoints_operator_rejected_endpoints 1.0" in lines


def test_each_endpoint_has_one_series_with_its_state():
    lines = [line for line in exposition().splitlines() if line.startswith("model_endpoints_endpoint_ready{")]
    assert lines == [
        'model_endpoints_endpoint_ready{name="a",namespace="models",reason="Serving"} 1.0',
        'model_endpoints_endpoint_ready{name="b",namespace="models",reason="ExceedsProfile"} 0.0',
    ]


def test_what_an_endpoint_has_used_is_counted_and_its_cost_only_where_it_is_known():
    lines = [
        line for line in exposition().splitlines() if re.match(r"model_endpoints_endpoint_\w+_total{", line)
    ]
    assert lines == [
        'model_endpoints_endpoint_compute_seconds_total{name="a",namespace="models"} 1.5',
        'model_endpoints_endpoint_compute_seconds_total{name="b",namespace="models"} 1.5',
        'model_endpoints_endpoint_replica_seconds_total{name="a",namespace="models"} 60.0',
        'model_endpoints_endpoint_replica_seconds_total{name="b",namespace="models"} 60.0',
        'model_endpoints_endpoint_cost_total{name="a",namespace="models"} 0.25',
    ]


def test_the_last_success_is_a_unix_time():
    [value] = re.findall(
        r"^model_endpoints_operator_last_success_timestamp_seconds (\S+)$", exposition(), re.M
    )
    assert float(value) == 1_700_000_000.5


def test_alerts_and_dashboard_use_metrics_that_exist():
    files = ("templates/prometheusrule.yaml", "files/dashboard.json")
    used = {
        name
        for file in files
        for name in re.findall(r"(?<!ray_)\bmodel_endpoints_\w+", (CHART / file).read_text(encoding="utf-8"))
    }
    exposed = set(re.findall(r"^(model_endpoints_\w+)", exposition(), re.M))
    assert used
    assert used <= exposed


def test_the_metrics_of_usage_are_documented():
    text = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8").partition("## Metrics")[2]
    exposed = re.findall(r"^# HELP (model_endpoints_endpoint_\w+_total) ", exposition(), re.M)
    assert len(exposed) == 3
    assert [name for name in exposed if f"`{name}" not in text] == []


def test_the_table_of_metrics_is_that_of_the_code():
    text = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8").partition("## Metrics")[2]
    documented = re.findall(r"^\| `(\w+)` \|", text, re.M)
    exposed = re.findall(r"^# HELP model_endpoints_operator_(\w+) ", exposition(), re.M)
    assert documented == [name for name in exposed if not name.endswith("_created")]
