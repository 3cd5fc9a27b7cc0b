"""Say shortly why an application does not run, from what KubeRay reports of it; pure text."""

import re
from typing import Final

from endpoint_operator.controller.observed.rayservice import ApplicationReport
from serve_app.failure import application_cause

# Serve's words for a replica without a place, in `ray/serve/_private/deployment_state.py`.
_WITHOUT_A_PLACE: Final = re.compile(
    r"has (?P<replicas>\d+) replicas that have taken more than \S+ to be scheduled"
    r".*?Resources required for each replica: (?P<asked>.*?), "
    r"total resources available: (?P<there>.*?)\. Use",
    re.DOTALL,
)


def missing_place(report: ApplicationReport) -> str:
    """Return what a waiting replica asks for and what the cluster has; empty if none waits for a place."""
    for message in report.deployment_messages:
        if found := _WITHOUT_A_PLACE.search(message):
            count = found["replicas"]
            replicas = "1 replica" if count == "1" else f"{count} replicas"
            return (
                f"{replicas} cannot be scheduled: a replica asks for {found['asked']}, "
                f"and the cluster has {found['there']}"
            )
    return ""


def trouble(report: ApplicationReport) -> str:
    """Return the cause in one line; empty if nothing is wrong."""
    return missing_place(report) or application_cause(report.deployment_messages, report.message)
