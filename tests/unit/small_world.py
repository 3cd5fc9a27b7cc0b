"""A cluster as plain values, so that the operator's decisions can be watched over time without one."""

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from endpoint_operator.controller.decide.desired import Observation, Policy, desired_state
from endpoint_operator.controller.decide.rollout import Clock
from endpoint_operator.controller.decide.stopwatch import Stopwatch
from endpoint_operator.controller.observed.endpoint import compile_endpoint, parse_observed
from endpoint_operator.controller.observed.ray_view import DashboardReport, RayView
from endpoint_operator.controller.observed.rayservice import parse_ray_service
from endpoint_operator.controller.observed.rejection import Rejection
from endpoint_operator.controller.observed.serve_details import parse_serve_details
from endpoint_operator.controller.settings import Deadlines
from endpoint_operator.serveconfig.compiler import gateway_application
from endpoint_operator.serveconfig.document import read_entries, to_entry
from tests.harness.builders import CLUSTER, manifest

DEADLINES = Deadlines()
FAILED_SECONDS = DEADLINES.failed_seconds
RETRY_SECONDS = DEADLINES.retry_seconds
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
BROKEN = {"uri": "file:///models/broken"}
LONG_AGO = "2026-01-01T00:00:00Z"
ERROR = "serve_app.loading.sources.SourceError: there is no folder /models/broken"


def cluster_status(name, applications):
    """Return what KubeRay writes about a Ray cluster that exists."""
    status = {"rayClusterName": name, "rayClusterStatus": {"state": "ready"}}
    return status | ({"applicationStatuses": applications} if applications else {})


def application(status="RUNNING", message=""):
    """Return what KubeRay writes about an application."""
    return {
        "status": status,
        "message": "",
        "serveDeploymentStatuses": {"Model": {"status": "", "message": message}},
    }


def details(status="RUNNING", ready=1, message="", **more):
    """Return what the dashboard says of an application."""
    replicas = [{"state": "RUNNING"}] * ready
    return {
        "status": status,
        "message": "",
        "deployments": {"Model": {"message": message, "replicas": replicas}},
    } | more


WAITS = application(
    "DEPLOYING",
    "Deployment 'Model' in application 'a' has 1 replicas that have taken more than 30s to be scheduled. "
    'Resources required for each replica: {"GPU": 1}, total resources available: {}. Use `ray status`.',
)

FAILED = application("DEPLOY_FAILED", f"Traceback (most recent call last):\n{ERROR}\n")


class World:
    """Endpoints, a RayService, and an operator that looks when it is told to."""

    def __init__(self, *names, document_limit=900_000):
        self.endpoints = {}
        self.now = 0.0
        self.profiles = CLUSTER
        self.document_limit = document_limit
        self.rejection = Rejection.NONE
        # What the dashboard says of the active cluster; None if nobody is asked, as in most tests.
        self.dashboard = None
        # The cluster that it speaks of, if not the active one.
        self.dashboard_cluster = None
        self.dashboard_overdue = False
        self.dashboard_awaited = False
        self.dashboard_locked_out = False
        # What the models have used; None if nobody is asked.
        self.usage = None
        self._version = 0
        self.service = {
            "metadata": {"uid": "ray", "resourceVersion": "0", "generation": 1},
            "spec": {},
            "status": {},
        }
        self.restart()
        for name in names:
            self.create(name)

    def restart(self):
        """Let another process take over."""
        self.watch = Stopwatch()

    def create(self, name, **spec):
        """Create an endpoint, or another one in its place."""
        self._version += 1
        stored = manifest(name, created=f"2026-01-01T00:{self._version:02}:00Z", **spec)
        stored["metadata"] |= {
            "uid": f"{name}-{self._version}",
            "resourceVersion": str(self._version),
            "generation": 1,
        }
        self.endpoints[name] = stored

    def change(self, name, **spec):
        """Change sections of the spec of an endpoint."""
        stored = self.endpoints[name]
        sections = manifest(name, **spec)["spec"]
        stored["spec"] |= {section: sections[section] for section in spec}
        stored["metadata"]["generation"] += 1
        self._version += 1
        stored["metadata"]["resourceVersion"] = str(self._version)

    def reconcile(self, after=0.0):
        """Let the operator look after so many seconds, store what it desires, and return that."""
        self.now += after
        self.watch.begin(self.now)
        clock = Clock(BEGINNING + timedelta(seconds=self.now), DEADLINES, self.watch)
        desired = desired_state(self.observation(), Policy(self.document_limit, "http://ray"), clock)
        for name, status in desired.statuses.items():
            self.endpoints[name]["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if desired.document is not None and desired.document != self.document:
            self.service["spec"]["serveConfigV2"] = desired.document
            self.service["metadata"]["generation"] += 1
        return desired

    def observation(self):
        """Return what the operator reads."""
        service = parse_ray_service(self.service) if self.service else None
        endpoints = [
            replace(parse_observed(copy.deepcopy(stored)), sources=self.profiles.sources)
            for stored in self.endpoints.values()
        ]
        ours = [endpoint for endpoint in endpoints if not endpoint.deleting]
        report = None
        if self.dashboard is not None and service is not None and service.active is not None:
            cluster = self.dashboard_cluster or service.active.cluster
            report = DashboardReport(cluster, parse_serve_details(self.dashboard))
        return Observation(
            endpoints=ours,
            compiled={each.name: compile_endpoint(each, self.profiles) for each in ours},
            gateway=to_entry(gateway_application(self.profiles)),
            view=RayView(
                service,
                report,
                self.dashboard_overdue,
                self.dashboard_awaited,
                self.dashboard_locked_out,
            ),
            listed=frozenset(endpoint.name for endpoint in ours),
            rejection=self.rejection,
            usage=self.usage,
        )

    def answer(self, **states):
        """Let the dashboard answer as Ray does that has the live document.

        All runs with one replica if `states` do not say otherwise: a state, or what `details` returns.
        """
        applications = {}
        for name, entry in self.entries.items():
            told = states.get(name, "RUNNING")
            found = details(told) if isinstance(told, str) else told
            applications[name] = {"deployed_app_config": json.loads(entry)} | found
        self.dashboard = {"applications": applications}

    def follow(self, **applications):
        """Let KubeRay follow the document; all that is in it runs, if `applications` do not say otherwise."""
        reported = {name: application() for name in self.entries} | applications
        self.service["status"] = {
            "observedGeneration": self.service["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": "True"}],
            "activeServiceStatus": cluster_status("one", reported),
        }

    def upgrade(self, **applications):
        """Let KubeRay prepare another cluster, on which all runs if `applications` do not say otherwise."""
        self.service["metadata"]["generation"] += 1
        status = self.service["status"]
        status["activeServiceStatus"] = cluster_status(status["activeServiceStatus"]["rayClusterName"], {})
        self.follow_pending(**applications)

    def follow_pending(self, **applications):
        """Let KubeRay hand the document to the cluster that it prepares, and report on that one alone."""
        reported = {name: application() for name in self.entries} | applications
        self.service["status"] |= {
            "observedGeneration": self.service["metadata"]["generation"],
            "pendingServiceStatus": cluster_status("two", reported),
        }

    def promote(self):
        """Let KubeRay move to the cluster that it has prepared."""
        status = self.service["status"]
        status["activeServiceStatus"] = status.pop("pendingServiceStatus")

    def settle(self, **applications):
        """Let time pass until KubeRay's report of the present document counts."""
        self.reconcile()
        self.follow(**applications)
        self.reconcile()
        return self.reconcile(after=DEADLINES.settle_seconds)

    def serve(self):
        """Bring everything up from nothing."""
        self.reconcile()
        self.follow()
        return self.settle()

    @property
    def document(self):
        """The live document."""
        return self.service["spec"].get("serveConfigV2", "")

    @property
    def entries(self):
        """The live entries by name."""
        return read_entries(self.document)

    def status(self, name):
        """Return the stored status."""
        return self.endpoints[name].get("status", {})

    def condition(self, name, kind="Ready"):
        """Return status and reason of a condition."""
        found = {each["type"]: (each["status"], each["reason"]) for each in self.status(name)["conditions"]}
        return found[kind]
