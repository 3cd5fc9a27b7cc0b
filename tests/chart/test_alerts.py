"""Each alert on recorded series, with Prometheus' own promtool: when it fires, and when it does not.

The series have the labels that a ServiceMonitor and a PodMonitor of Prometheus' operator give them.
"""

import re
from dataclasses import dataclass

import pytest
import yaml

from endpoint_operator.api.status import Reason
from hack.commands import run
from hack.errors import CommandError
from tests.chart.rendering import EVERYTHING, of_kind, template

OPERATOR = 'job="models-model-endpoints-operator",namespace="here",pod="operator-1"'
RESTARTED = OPERATOR.replace("operator-1", "operator-2")
HEAD = 'job="here/models-model-endpoints-ray",namespace="here",endpoint="metrics",ray_io_node_type="head"'
PROXY = HEAD.replace('"metrics"', '"haproxy-metrics"')
WORKER = HEAD.replace('"head"', '"worker"')
HERE = {"namespace": "here"}
MODEL = HERE | {"name": "a"}
ALIVE = "model_endpoints_operator_last_success_timestamp_seconds"
READY = "model_endpoints_endpoint_ready"
FAILED = "ray_serve_num_http_error_requests_total"
ASKED = "ray_serve_num_http_requests_total"
COUNTED = "ray_model_endpoints_requests_total"
BLOCKING = f"model_endpoints_operator_upgrade_blocking_endpoints{{{OPERATOR}}}"
BYTES = f"model_endpoints_operator_serve_config_bytes{{{OPERATOR}}}"
LEADER = "model_endpoints_operator_leader"
LAG = f"model_endpoints_operator_rayservice_generation_lag{{{OPERATOR}}}"


def elsewhere(labels):
    """Return the labels of a second release, in another namespace, with the same Prometheus."""
    return labels.replace("here", "there")


def endpoint(reason, name="a", labels=OPERATOR):
    # The operator's own label `namespace` makes way for the one of the target.
    return f'{READY}{{{labels},exported_namespace="here",name="{name}",reason="{reason}"}}'


@dataclass(frozen=True)
class Case:
    """Series by name and values in Prometheus' notation, one a minute; and when to look for the alert."""

    series: dict[str, str]
    minute: int
    # The labels of each alert that fires, severity left out.
    fires: tuple[dict[str, str], ...] = ()


def steady(series, minute, *fires, value="0"):
    return Case(dict.fromkeys(series, f"{value}x60"), minute, fires)


CASES = {
    "ModelEndpointWithdrawn": {
        "fires": steady([endpoint("Withdrawn"), endpoint("DeployFailed", "b")], 3, MODEL),
        "not at once": Case({endpoint("Serving"): "1x9 stale", endpoint("Withdrawn"): "_x10 0x50"}, 10),
        "not elsewhere": steady([endpoint("Withdrawn", labels=elsewhere(OPERATOR))], 30),
    },
    "ModelEndpointRolledBack": {
        "fires": steady([endpoint("RolledBack")], 3, MODEL),
        "fires if it is ready": steady([endpoint("RolledBack")], 3, MODEL, value="1"),
        "mended": Case({endpoint("RolledBack"): "0x9 stale", endpoint("Serving"): "_x10 1x50"}, 20),
    },
    "ModelEndpointUnschedulable": {
        "fires": steady([endpoint("Unschedulable")], 6, MODEL),
        "a node comes": Case({endpoint("Unschedulable"): "0x3 stale", endpoint("Serving"): "_x4 1x50"}, 8),
    },
    "ModelEndpointNotReady": {
        "fires, whatever the reason": Case(
            {endpoint("Deploying"): "0x9 stale", endpoint("DeployFailed"): "_x10 0x50"}, 16, (MODEL,)
        ),
        "fires over the operator's restart": Case(
            {
                endpoint("InvalidSpec"): "0x9 stale",
                endpoint("InvalidSpec", labels=RESTARTED): "_x10 0x50",
            },
            16,
            (MODEL,),
        ),
        "not for what its owner has suspended": steady([endpoint("Suspended")], 50),
        "not twice": steady(map(endpoint, ["Withdrawn", "RolledBack", "Unschedulable"]), 50),
        "not for a replacement": Case(
            {endpoint("Serving"): "1x9 stale _x8 1x50", endpoint("Deploying"): "_x10 0x8 stale"}, 24
        ),
        "not while it serves": steady([endpoint("Serving")], 50, value="1"),
    },
    "ModelEndpointErrors": {
        "fires": Case(
            {
                f'{FAILED}{{{WORKER},application="a",error_code="500"}}': "0+10x60",
                f'{ASKED}{{{WORKER},application="a"}}': "0+100x60",
            },
            12,
            (HERE | {"application": "a"},),
        ),
        "not for few, and not for the clients' own": Case(
            {
                f'{FAILED}{{{WORKER},application="a",error_code="500"}}': "0+1x60",
                f'{FAILED}{{{WORKER},application="a",error_code="422"}}': "0+90x60",
                f'{ASKED}{{{WORKER},application="a"}}': "0+100x60",
            },
            30,
        ),
        "not without requests": Case({f'{ASKED}{{{WORKER},application="a"}}': "7x60"}, 30),
    },
    "ModelEndpointOverloaded": {
        "fires": Case(
            {
                f'{COUNTED}{{{WORKER},application="a",status="429",code="overloaded"}}': "0+10x60",
                f'{COUNTED}{{{WORKER},application="a",status="200",code=""}}': "0+90x60",
            },
            17,
            (HERE | {"application": "a"},),
        ),
        "not for few, and not for the limits of a key": Case(
            {
                f'{COUNTED}{{{WORKER},application="a",status="429",code="overloaded"}}': "0+1x60",
                f'{COUNTED}{{{WORKER},application="a",status="429",code="rate_limited"}}': "0+50x60",
                f'{COUNTED}{{{WORKER},application="a",status="200",code=""}}': "0+90x60",
            },
            50,
        ),
        "not for a while": Case(
            {
                f'{COUNTED}{{{WORKER},application="a",status="429",code="overloaded"}}': "0+10x5 50x55",
                f'{COUNTED}{{{WORKER},application="a",status="200",code=""}}': "0+90x60",
            },
            17,
        ),
    },
    "ModelEndpointsUpgradeBlocked": {
        "fires": steady([BLOCKING], 3, HERE, value="2"),
        "no upgrade": steady([BLOCKING], 30),
    },
    "ModelEndpointsServeConfigLarge": {
        "fires": steady([BYTES], 3, HERE, value="800000"),
        "room": steady([BYTES], 30, value="600000"),
    },
    "ModelEndpointsOperatorGone": {
        "fires": Case(
            {f"{LEADER}{{{OPERATOR}}}": "1x9 stale", f"{LEADER}{{{elsewhere(OPERATOR)}}}": "1x60"},
            17,
            (HERE | {"job": "models-model-endpoints-operator"},),
        ),
        "fires if it was never there": Case({}, 6, (HERE | {"job": "models-model-endpoints-operator"},)),
        "not for a restart": Case(
            {f"{LEADER}{{{OPERATOR}}}": "1x9 stale", f"{LEADER}{{{RESTARTED}}}": "_x12 1x60"}, 16
        ),
        "not while another one waits": Case(
            {f"{LEADER}{{{OPERATOR}}}": "1x9 stale", f"{LEADER}{{{RESTARTED}}}": "0x60"}, 30
        ),
    },
    "ModelEndpointsOperatorWithoutLeader": {
        "fires": Case(
            {
                f"{LEADER}{{{OPERATOR}}}": "1x9 stale",
                f"{LEADER}{{{RESTARTED}}}": "0x60",
                f"{LEADER}{{{elsewhere(OPERATOR)}}}": "1x60",
            },
            14,
            (HERE,),
        ),
        "not for those that wait": Case(
            {f"{LEADER}{{{OPERATOR}}}": "1x60", f"{LEADER}{{{RESTARTED}}}": "0x60"}, 30
        ),
        "not when the leader changes": Case(
            {f"{LEADER}{{{OPERATOR}}}": "1x9 0x50", f"{LEADER}{{{RESTARTED}}}": "0x10 1x50"}, 14
        ),
    },
    "ModelEndpointsOperatorStuck": {
        "fires": steady([f"{ALIVE}{{{OPERATOR}}}"], 11, HERE),
        "not while it works": Case({f"{ALIVE}{{{OPERATOR}}}": "0+60x60"}, 50),
        "not after another one took over": Case(
            {f"{ALIVE}{{{OPERATOR}}}": "0x9 stale", f"{ALIVE}{{{RESTARTED}}}": "_x10 600+60x50"}, 30
        ),
        "not elsewhere": steady([f"{ALIVE}{{{elsewhere(OPERATOR)}}}"], 30),
    },
    "ModelEndpointsNotFollowed": {
        "fires": steady([LAG], 6, HERE, value="1"),
        "followed": Case({LAG: "1x3 0x50"}, 30),
    },
    "ModelEndpointsHeadGone": {
        "fires": Case(
            {
                f'up{{{HEAD},pod="one"}}': "1x9 stale",
                f'up{{{WORKER},pod="two"}}': "1x60",
                f'up{{{elsewhere(HEAD)},pod="three"}}': "1x60",
            },
            14,
            (HERE,),
        ),
        "fires if it does not answer": Case({f'up{{{HEAD},pod="one"}}': "1x9 0x50"}, 14, (HERE,)),
        "fires whatever its proxy says": Case(
            {f'up{{{HEAD},pod="one"}}': "1x9 0x50", f'up{{{PROXY},pod="one"}}': "1x60"}, 14, (HERE,)
        ),
        "not while another is up": Case(
            {f'up{{{HEAD},pod="one"}}': "1x9 0x50", f'up{{{HEAD},pod="two"}}': "0x8 1x50"}, 40
        ),
    },
}


@pytest.fixture(scope="module")
def groups():
    [rule] = of_kind(template(*EVERYTHING), "PrometheusRule")
    return rule["spec"]


@pytest.fixture
def rules(groups, tmp_path):
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(groups))
    return file


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(groups):
    alerts = [rule["alert"] for group in groups["groups"] for rule in group["rules"]]
    assert alerts == list(CASES)
    for cases in CASES.values():
        assert {bool(case.fires) for case in cases.values()} == {True, False}


def test_reasons_in_the_rules_are_those_of_the_operator(groups):
    named = re.findall(r'reason[!=~]+"([^"]+)"', yaml.safe_dump(groups, width=10_000))
    assert {reason for names in named for reason in names.split("|")} <= set(Reason)
    assert named


def test_promtool_finds_nothing_wrong_with_the_rules(promtool, rules):
    assert "SUCCESS" in run(promtool, "check", "rules", "--lint-fatal", rules)


@pytest.mark.parametrize(
    ("alert", "name"), [(alert, name) for alert, cases in CASES.items() for name in cases]
)
def test_an_alert_fires_when_it_should_and_not_otherwise(promtool, rules, groups, alert, name):
    case = CASES[alert][name]
    [rule] = [rule for group in groups["groups"] for rule in group["rules"] if rule["alert"] == alert]
    always = {"alertname": alert, "alertstate": "firing"} | rule["labels"]
    expected = [{"labels": series_of("ALERTS", always | labels), "value": 1} for labels in case.fires]
    query = {
        "expr": f'ALERTS{{alertname="{alert}",alertstate="firing"}}',
        "eval_time": f"{case.minute}m",
        "exp_samples": expected,
    }
    series = [{"series": series, "values": values} for series, values in case.series.items()]
    tests = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [query]}],
    }
    file = rules.with_name("tests.yaml")
    file.write_text(yaml.safe_dump(tests))
    run(promtool, "test", "rules", file)


def series_of(metric, labels):
    listed = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{listed}}}"


@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor"])
def test_alerts_without_the_metrics_that_they_look_for_are_refused(monitor):
    with pytest.raises(CommandError, match="monitoring.prometheusRule needs"):
        template(*EVERYTHING, f"--set=monitoring.{monitor}=false")
