"""The cause of an application that does not run, in one line."""

import pytest

from endpoint_operator.controller.observed.messages import failure_cause, unschedulable_message
from endpoint_operator.controller.observed.rayservice import ApplicationReport


def unschedulable(replicas):
    return (
        f"Deployment 'Model' in application 'a' has {replicas} replicas that have taken more than 30s to be "
        "scheduled. This may be due to waiting for the cluster to auto-scale. "
        'Resources required for each replica: {"CPU": 2}, total resources available: {"CPU": 1}. '
        "Use `ray status` for more details."
    )


@pytest.mark.parametrize(("replicas", "shown"), [(1, "1 replica"), (3, "3 replicas")])
def test_an_unschedulable_replica_is_told_with_what_it_asks_for(replicas, shown):
    report = ApplicationReport("DEPLOYING", deployment_messages=("", unschedulable(replicas)))
    sentence = (
        f'{shown} cannot be scheduled: a replica asks for {{"CPU": 2}}, and the cluster has {{"CPU": 1}}'
    )
    assert unschedulable_message(report) == sentence
    assert failure_cause(report) == sentence


def test_an_error_is_the_cause_if_all_replicas_have_a_node():
    report = ApplicationReport("DEPLOY_FAILED", deployment_messages=("Traceback:\nValueError: no weights\n",))
    assert unschedulable_message(report) == ""
    assert "no weights" in failure_cause(report)


def test_nothing_wrong_has_no_cause():
    assert failure_cause(ApplicationReport("RUNNING")) == ""
