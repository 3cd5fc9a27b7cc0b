"""One view of Ray, made of two sources; pure.

Ray's dashboard says what Serve does now: states, replicas, and the configuration that it has accepted. It
speaks of the active cluster, to which the RayService's head Service leads. KubeRay's copy in the RayService
says less and later, but it is all there is of a pending cluster and of a service without a dashboard.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from endpoint_operator.controller.observed.rayservice import ApplicationReport, RayService


@dataclass(frozen=True)
class DashboardReport:
    """An answer of the dashboard, and the Ray cluster that was the active one when it was asked."""

    cluster: str
    applications: Mapping[str, ApplicationReport]


@dataclass(frozen=True)
class RayView:
    """What is known of Ray; `dashboard` is None if there is no answer that is new enough."""

    service: RayService | None
    dashboard: DashboardReport | None = None
    # There is a dashboard to ask, and its newest answer is too old.
    dashboard_overdue: bool = False
    # It has not answered yet since this process started.
    dashboard_awaited: bool = False
    # It answers that it does not know the operator's token.
    dashboard_locked_out: bool = False

    @property
    def is_upgrading(self) -> bool:
        """Whether KubeRay prepares a second Ray cluster, to replace the active one."""
        return self.service is not None and self.service.is_upgrading

    @cached_property
    def active(self) -> Mapping[str, ApplicationReport] | None:
        """What the dashboard says of the applications of the active cluster; None if it has not."""
        service, answer = self.service, self.dashboard
        if service is None or service.active is None or answer is None:
            return None
        return answer.applications if answer.cluster == service.active.cluster else None

    @cached_property
    def is_fresh(self) -> bool:
        """Whether `applications` is Ray's own word, and not KubeRay's copy of it."""
        return self.active is not None and not self.is_upgrading

    @property
    def is_silent(self) -> bool:
        """Whether the dashboard does not say what it should.

        During an upgrade a token that it does not know says nothing against the head: that of the other
        Ray cluster may be in the Secret.
        """
        return self.dashboard_overdue and not (self.dashboard_locked_out and self.is_upgrading)

    @cached_property
    def applications(self) -> Mapping[str, ApplicationReport]:
        """The applications of the cluster that gets Serve configs: the pending one during an upgrade."""
        if self.is_fresh and self.active is not None:
            return self.active
        return self.service.applications if self.service else {}


def is_deployed(report: ApplicationReport | None, entry: str) -> bool:
    """Whether Ray says that it has accepted `entry` for the application.

    Compared as values, because KubeRay writes numbers in its own way.
    """
    return report is not None and report.deployed is not None and report.deployed == _decoded(entry)


def answers(report: ApplicationReport, entry: str, *, has_run: bool) -> bool:
    """Whether `entry`, which Ray has for the application, answers requests, as far as replicas are known.

    One that may have no replica gets one for a request. While Ray deploys an application or replaces some of
    its replicas, those that are ready are of `entry` only if it `has_run` before.
    """
    if report.replicas is None:
        return report.status == "RUNNING"
    if report.status == "RUNNING":
        return report.replicas.ready > 0 or _may_have_no_replica(entry)
    return report.status in ("DEPLOYING", "UNHEALTHY") and has_run and report.replicas.ready > 0


def _may_have_no_replica(entry: str) -> bool:
    deployments = _decoded(entry)["deployments"]
    return all((each.get("autoscaling_config") or {}).get("min_replicas") == 0 for each in deployments)


@lru_cache(maxsize=8192)
def _decoded(entry: str) -> Any:
    return json.loads(entry)
