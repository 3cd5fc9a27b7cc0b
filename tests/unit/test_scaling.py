"""The number of replicas by requests and by what replicas hold, within Serve's own delays and bounds."""

import pytest
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.constants import SERVE_AUTOSCALING_DECISION_TIMESTAMP_KEY
from ray.serve.autoscaling_policy import _apply_autoscaling_config, default_autoscaling_policy
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from serve_app.contract import SCALING_POLICY_IMPORT_PATH
from serve_app.scaling import LOAD, replicas_for


def context(replicas, requests, loads=None, state=None, **config):
    """Return what Serve's controller hands to a policy; `loads` are those of the replicas that report."""
    names = [f"replica-{number}" for number in range(replicas)]
    metrics = {} if loads is None else {LOAD: dict(zip(names, loads, strict=False))}
    return AutoscalingContext(
        deployment_id=None,
        deployment_name="Model",
        app_name="chat",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=names,
        total_num_requests=float(requests),
        total_queued_requests=0.0,
        aggregated_metrics=lambda: metrics,
        raw_metrics=None,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=9,
        policy_state=state or {},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=AutoscalingConfig(
            min_replicas=0,
            max_replicas=9,
            target_ongoing_requests=8,
            **{"upscale_delay_s": 0, "downscale_delay_s": 0, **config},
        ),
    )


def as_serve_calls(policy, ctx):
    """Return the decision after Serve's own delays, before its bounds."""
    return _apply_autoscaling_config(policy)(ctx)[0]


@pytest.mark.parametrize(
    ("replicas", "requests", "loads", "expected"),
    [
        # Three requests of 4000 tokens, where 12,000 have room.
        (1, 3, [1.0], 2),
        # Nine more of them wait.
        (1, 12, [4.0], 5),
        # A replica that has just started has not reported.
        (2, 4, [1.5], 2),
        (3, 4, [1.0, 0.5, 0.1], 2),
        # The one replica that is left has room for what both hold.
        (2, 2, [0.4, 0.39], 1),
        (1, 2, [0.79], 1),
        # Many small requests are seen by their number.
        (1, 20, [0.3], 3),
        (2, 0, [0.0, 0.0], 1),
        (1, 0, [0.0], 0),
    ],
)
def test_there_are_as_many_replicas_as_requests_or_tokens_need(replicas, requests, loads, expected):
    assert as_serve_calls(replicas_for, context(replicas, requests, loads)) == expected


@pytest.mark.parametrize("loads", [None, []])
@pytest.mark.parametrize(("replicas", "requests"), [(0, 0), (0, 1), (0, 9), (1, 0), (1, 9), (3, 8), (3, 100)])
def test_without_a_report_it_is_as_serve_does_by_itself(replicas, requests, loads):
    own, serves = (
        as_serve_calls(policy, context(replicas, requests, loads, downscale_delay_s=5))
        for policy in (replicas_for, default_autoscaling_policy)
    )
    assert own == serves


def test_the_first_request_starts_a_replica_at_once():
    assert as_serve_calls(replicas_for, context(0, 1, upscale_delay_s=600)) == 1


@pytest.mark.parametrize(("replicas", "loads"), [(1, [2.0]), (3, [0.1, 0.0, 0.0])])
def test_serve_applies_its_delays(replicas, loads):
    delays = {"upscale_delay_s": 600, "downscale_delay_s": 600}
    policy = _apply_autoscaling_config(replicas_for)
    number, state = policy(context(replicas, 1, loads, **delays))
    assert number == replicas
    assert state[SERVE_AUTOSCALING_DECISION_TIMESTAMP_KEY] is not None
    state[SERVE_AUTOSCALING_DECISION_TIMESTAMP_KEY] -= 601
    assert policy(context(replicas, 1, loads, state, **delays))[0] != replicas


def test_serve_finds_the_policy_by_its_name_and_reads_it_in_its_controller():
    policy = AutoscalingPolicy(policy_function=SCALING_POLICY_IMPORT_PATH)
    assert as_serve_calls(_resolve_policy_callable(policy), context(1, 3, [1.0])) == 2
