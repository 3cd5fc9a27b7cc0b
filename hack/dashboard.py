"""Grafana's dashboard, from the rows and expressions that are listed here.

One row is about the platform, one about all models, and one about each model; that asks nothing until it is
opened.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
# Grafana counts 24 columns.
_COLUMNS: Final = 24
_HEIGHT: Final = 8

# What the operator, the pods of Ray and the models of one release have in common.
_HERE: Final = 'namespace="$namespace"'
_SHOWN: Final = f'{_HERE}, application=~"$model"'


@dataclass(frozen=True)
class Panel:
    """One picture: expressions by their legends, and the unit of their values by Grafana's name."""

    title: str
    unit: str
    expressions: Mapping[str, str]
    width: int = 6
    kind: str = "timeseries"


def _rate(metric: str, by: str, selector: str) -> str:
    """Return the growth of a counter a second, by labels."""
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def _quantile(quantile: float, histogram: str) -> str:
    buckets = _rate(f"ray_model_endpoints_{histogram}_bucket", "application, le", _SHOWN)
    return f"histogram_quantile({quantile}, {buckets})"


def _mean(histogram: str) -> str:
    total, count = (
        _rate(f"ray_model_endpoints_{histogram}_{part}", "application", _SHOWN) for part in ("sum", "count")
    )
    return f"{total} / {count}"


def _operator(metric: str) -> str:
    return f"model_endpoints_operator_{metric}{{{_HERE}}}"


_PODS: Final = f'up{{{_HERE}, endpoint="metrics"}} == 1'
_REQUESTS: Final = "ray_model_endpoints_requests_total"

_COST: Final = (
    f'sum by (name) (rate(model_endpoints_endpoint_cost_total{{{_HERE}, name=~"$model"}}[10m])) * 3600'
)

_PLATFORM: Final = (
    Panel(
        "Endpoints by reason",
        "short",
        {"{{reason}}": f"sum by (reason) ({_operator('endpoints')} > 0)"},
        kind="bargauge",
    ),
    Panel(
        "Since the last successful reconciliation",
        "s",
        {"age": f"time() - max({_operator('last_success_timestamp_seconds')})"},
        width=3,
        kind="stat",
    ),
    Panel("Operators that lead", "short", {"leaders": f"sum({_operator('leader')})"}, width=3, kind="stat"),
    Panel(
        "Endpoints that hold an upgrade",
        "short",
        {"endpoints": f"max({_operator('upgrade_blocking_endpoints')})"},
        width=3,
        kind="stat",
    ),
    Panel(
        "Ray's heads that are up",
        "short",
        {"heads": f'count(up{{{_HERE}, endpoint="metrics", ray_io_node_type="head"}} == 1)'},
        width=3,
        kind="stat",
    ),
    Panel(
        "Pods of each Ray cluster", "short", {"{{ray_io_cluster}}": f"count by (ray_io_cluster) ({_PODS})"}
    ),
    Panel("Workers by profile", "short", {"{{profile}}": f"count by (profile) ({_PODS})"}),
    Panel(
        "Autoscaled replicas, wanted and there",
        "short",
        {
            "{{application}} wanted": "max by (application) "
            f"(ray_serve_autoscaling_target_replicas{{{_SHOWN}}})",
            "{{application}}": "sum by (application) "
            f'(ray_serve_deployment_replica_healthy{{{_SHOWN}, deployment="Model"}})',
        },
    ),
    Panel(
        "Serve config",
        "short",
        {
            "writes": f"sum(increase({_operator('serve_config_writes_total')}[5m]))",
            "rollbacks": f"sum(increase({_operator('rollbacks_total')}[5m]))",
        },
    ),
    Panel(
        "Duration of a reconciliation, mean",
        "s",
        {
            "mean": f"sum(rate({_operator('reconcile_time_seconds_sum')}[5m])) "
            f"/ sum(rate({_operator('reconcile_time_seconds_count')}[5m]))"
        },
    ),
    Panel(
        "Answers of HAProxy by status",
        "reqps",
        {
            "{{code}}": _rate(
                "haproxy_frontend_http_responses_total", "code", f'{_HERE}, proxy="http_frontend"'
            )
        },
    ),
)

_MODELS: Final = (
    Panel("Requests", "reqps", {"{{application}}": _rate(_REQUESTS, "application", _SHOWN)}),
    Panel(
        "Errors that clients got, whoever made them",
        "reqps",
        {
            "{{application}} {{error_code}}": _rate(
                "ray_serve_num_http_error_requests_total", "application, error_code", _HERE
            )
        },
    ),
    Panel("Latency, p99", "s", {"{{application}}": _quantile(0.99, "request_seconds")}),
    Panel("Cost an hour, by the price of the profile", "short", {"{{name}}": _COST}),
    Panel(
        "Share of the time in which a replica computes",
        "percentunit",
        {
            "{{application}}": "avg by (application) "
            f"(rate(ray_model_endpoints_compute_seconds_total{{{_SHOWN}}}[$__rate_interval]))"
        },
    ),
)

_ONE_MODEL: Final = (
    Panel("Requests by protocol", "reqps", {"{{protocol}}": _rate(_REQUESTS, "protocol", _SHOWN)}),
    Panel(
        "Errors by cause",
        "reqps",
        {"{{status}} {{code}}": _rate(_REQUESTS, "status, code", f'{_SHOWN}, status=~"[45].."')},
    ),
    Panel(
        "Latency",
        "s",
        {
            "p50": _quantile(0.5, "request_seconds"),
            "p99": _quantile(0.99, "request_seconds"),
        },
    ),
    Panel(
        "In the queue and in the model, p99",
        "s",
        {
            "queue": _quantile(0.99, "queue_seconds"),
            "model": _quantile(0.99, "model_seconds"),
        },
    ),
    Panel(
        "Size of a batch, mean",
        "short",
        {"sequences": _mean("batch_sequences"), "tokens": _mean("batch_tokens")},
    ),
    Panel(
        "Tokens",
        "short",
        {
            "read": _rate("ray_model_endpoints_input_tokens_total", "application", _SHOWN),
            "generated": _rate("ray_model_endpoints_output_tokens_total", "application", _SHOWN),
            "known": _rate("ray_model_endpoints_cached_input_tokens_total", "application", _SHOWN),
        },
    ),
    Panel(
        "Replicas",
        "short",
        {
            "healthy": "sum by (application) "
            f'(ray_serve_deployment_replica_healthy{{{_SHOWN}, deployment="Model"}})',
            "served as {{step}}": f"count by (step) (ray_model_endpoints_model_info{{{_SHOWN}}})",
        },
    ),
    Panel("Cost an hour", "short", {"cost": _COST}),
    Panel(
        "Start of a replica, by phase",
        "s",
        {"{{phase}}": f"max by (phase) (ray_model_endpoints_start_seconds{{{_SHOWN}}})"},
    ),
    Panel(
        "Generation: first token, and each after it, p90",
        "s",
        {
            "first": _quantile(0.9, "time_to_first_token_seconds"),
            "others": _quantile(0.9, "time_per_output_token_seconds"),
        },
    ),
    Panel(
        "Generation: how full the batch is",
        "percentunit",
        {"{{replica}}": f"max by (replica) (ray_model_endpoints_generation_load{{{_SHOWN}}})"},
    ),
)


def to_json() -> str:
    """Return the dashboard as Grafana imports it."""
    document = {
        "title": "Model Endpoints",
        "uid": "model-endpoints",
        "tags": ["ray", "model-endpoints"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": list(_rows()),
    }
    return json.dumps(document, indent=2) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus"}
    yield _variable("namespace", "label_values(model_endpoints_operator_leader, namespace)")
    endpoints = f"label_values(model_endpoints_endpoint_ready{{{_HERE}}}, name)"
    yield _variable("model", endpoints) | {
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    # A model comes and goes while the dashboard is open.
    refresh_with_the_time_range = 2
    return {
        "name": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": query,
        "refresh": refresh_with_the_time_range,
    }


def _rows() -> Iterator[dict[str, Any]]:
    """Yield each row and its panels. Of a row that is closed, the panels are inside."""
    top, number = 0, 1
    for title, panels in (("Platform", _PLATFORM), ("Models", _MODELS)):
        yield _row(title, number, top)
        placed, top = _placed(panels, number + 1, top + 1)
        number += 1 + len(panels)
        yield from placed
    placed, _ = _placed(_ONE_MODEL, number + 1, top + 1)
    yield _row("$model", number, top) | {"repeat": "model", "collapsed": True, "panels": placed}


def _row(title: str, number: int, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
    return {"id": number, "title": title, "type": "row", "collapsed": False, "panels": [], "gridPos": place}


def _placed(panels: Sequence[Panel], number: int, top: int) -> tuple[list[dict[str, Any]], int]:
    """Return the panels from left to right, and the first line below them; `number` is the first one's."""
    placed: list[dict[str, Any]] = []
    left = 0
    for panel in panels:
        if left + panel.width > _COLUMNS:
            left, top = 0, top + _HEIGHT
        place = {"x": left, "y": top, "w": panel.width, "h": _HEIGHT}
        placed.append(_shown(panel) | {"id": number + len(placed), "gridPos": place})
        left += panel.width
    return placed, top + _HEIGHT


def _shown(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
        for number, (legend, expression) in enumerate(panel.expressions.items())
    ]
    return {
        "title": panel.title,
        "type": panel.kind,
        "datasource": _DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }
