"""A cluster as plain values, so that the operator's decisions can be watched over time without one."""

import copy

from endpoint_operator.controller.decide.decision import Decider, Snapshot
from endpoint_operator.controller.observed.endpoint import parse_observed
from endpoint_operator.controller.observed.rayservice import parse_ray_service
from endpoint_operator.controller.settings import Deadlines
from endpoint_operator.serveconfig.document import read_entries
from tests.unit.builders import CLUSTER, manifest

DEADLINES = Deadlines()
FAILED_SECONDS = DEADLINES.failed_seconds
BROKEN = {"uri": "file:///models/broken"}
LONG_AGO = "2026-01-01T00:00:00Z"
ERROR = "serve_app.loading.sources.SourceError: there is no folder /models/broken"


def application(status="RUNNING", message=""):
    """Return what KubeRay writes about an application."""
    return {
        "status": status,
        "message": "",
        "serveDeploymentStatuses": {"Model": {"status": "", "message": message}},
    }


FAILED = application("DEPLOY_FAILED", f"Traceback (most recent call last):\n{ERROR}\n")


class World:
    """Endpoints, a RayService, and an operator that looks when it is told to."""

    def __init__(self, *names, document_limit=900_000):
        self.endpoints = {}
        self.now = 0.0
        self.profiles = CLUSTER
        self.document_limit = document_limit
        self.refused = False
        self.dashboard_unreachable = False
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
        self.decider = Decider(DEADLINES, self.document_limit, "http://ray")

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

    def reconcile(self, after=0.0):
        """Let the operator look after so many seconds, store what it decides, and return the decision."""
        self.now += after
        service = parse_ray_service(self.service) if self.service else None
        endpoints = tuple(parse_observed(copy.deepcopy(stored)) for stored in self.endpoints.values())
        snapshot = Snapshot(
            endpoints,
            service,
            self.profiles,
            refused=self.refused,
            dashboard_unreachable=self.dashboard_unreachable,
        )
        decision = self.decider.decide(snapshot, self.now, f"time {self.now:g}")
        for name, status in decision.statuses.items():
            self.endpoints[name]["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if decision.document is not None and decision.document != self.document:
            self.service["spec"]["serveConfigV2"] = decision.document
            self.service["metadata"]["generation"] += 1
        return decision

    def follow(self, **applications):
        """Let KubeRay follow the document; all that is in it runs, if `applications` do not say otherwise."""
        reported = {name: application() for name in self.entries} | applications
        self.service["status"] = {
            "observedGeneration": self.service["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": "True"}],
            "activeServiceStatus": {"rayClusterName": "one", "applicationStatuses": reported},
        }

    def upgrade(self, **applications):
        """Let KubeRay prepare another cluster, on which all runs if `applications` do not say otherwise."""
        self.service["metadata"]["generation"] += 1
        status = self.service["status"]
        status["activeServiceStatus"] = {"rayClusterName": status["activeServiceStatus"]["rayClusterName"]}
        self.follow_pending(**applications)

    def follow_pending(self, **applications):
        """Let KubeRay hand the document to the cluster that it prepares, and report on that one alone."""
        reported = {name: application() for name in self.entries} | applications
        self.service["status"] |= {
            "observedGeneration": self.service["metadata"]["generation"],
            "pendingServiceStatus": {"rayClusterName": "two", "applicationStatuses": reported},
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
