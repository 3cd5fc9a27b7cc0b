"""Extract the cause from what KubeRay reports of an application that does not run; pure."""

import re
from typing import Final

from endpoint_operator.api.json_text import without_half_pairs
from endpoint_operator.controller.observed.rayservice import ApplicationReport
from serve_app.text import application_cause

# Serve's message about replicas that cannot be scheduled, from `ray/serve/_private/deployment_state.py`.
_UNSCHEDULABLE: Final = re.compile(
    r"has (?P<replicas>\d+) replicas that have taken more than \S+ to be scheduled"
    r".*?Resources required for each replica: (?P<asked>.*?), "
    r"total resources available: (?P<there>.*?)\. Use",
    re.DOTALL,
)


def unschedulable_message(report: ApplicationReport) -> str:
    """Return what an unschedulable replica asks for and what the cluster has; empty if there is none."""
    for message in report.deployment_messages:
        if found := _UNSCHEDULABLE.search(message):
            count = found["replicas"]
            replicas = "1 replica" if count == "1" else f"{count} replicas"
            return (
                f"{replicas} cannot be scheduled: a replica asks for {found['asked']}, "
                f"and the cluster has {found['there']}"
            )
    return ""


def failure_cause(report: ApplicationReport) -> str:
    """Return the cause in one line; empty if the report contains none."""
    cause = unschedulable_message(report) or application_cause(report.deployment_messages, report.message)
    # An exception of a model may quote anything.
    return without_half_pairs(cause)
