"""A simulator of KubeRay's RayService controller, for tests of the operator without nodes and without Ray.

It imitates `rayservice_controller.go` of KubeRay 1.6.2 towards the API server, its traps included:
- one reconcile a cycle (2 s there, shorter here); after an error the pause doubles, up to 1,000 s, until
  the spec or the cluster changes;
- application statuses are read before a document is put, so that RUNNING may speak of the previous
  document for a cycle in which observedGeneration is the new one;
- a document that Serve refuses, and a head pod that is missing, end the reconcile before the status:
  it stays as it was, observedGeneration below the generation;
- a head pod that is not ready makes all applications vanish from the status;
- documents are compared as strings; without any application they are put again in each cycle;
- a cluster becomes ready, and its Services come, only in a cycle in which all applications are
  RUNNING; meanwhile Ready says no more than that the Services have endpoints;
- during an upgrade only the pending cluster gets documents and reports applications; a further change of
  the cluster's spec, its return to the first one too, replaces the pending cluster by a newer one;
- a change of observedGeneration alone is not written;
- a RayCluster that was deleted keeps its name in the status, while another one is prepared;
- requests to the dashboard have 2 s there; one that takes longer ends the reconcile, and Ray may have done
  what it was asked for.

It leaves out: RayClusters, pods and Services as objects (tests say what state they are in),
incremental upgrades, validation of the spec, and initializing timeouts. A changed spec is met at the
next cycle instead of at once. `suspended` follows KubeRay 1.7; 1.6.2 cannot suspend a RayService.
"""

import copy
import json
import re
import secrets
import threading
import time
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Final

import httpx
import yaml

from tests.harness.kuberay.api import RayServices
from tests.harness.kuberay.serve import Outcome, RefusedDocumentError, Serve
from tests.harness.kuberay.status import (
    calculate_conditions,
    cluster_name,
    is_worth_writing,
    now,
    resumed,
    suspended,
)

FINALIZER: Final = "ray.io/rayservice-finalizer"
FIRST_BACKOFF_SECONDS: Final = 0.005
LONGEST_BACKOFF_SECONDS: Final = 1000.0

_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89abAB]")


class Head(StrEnum):
    """State of the head pods."""

    READY = "ready"
    NOT_READY = "not ready"
    MISSING = "missing"


class TimesOut(StrEnum):
    """Requests to the dashboard that KubeRay does not wait for."""

    NOTHING = "nothing"
    STATUS = "status"
    PUT = "put"


class ReconcileError(Exception):
    """What ends a reconcile before the status is written."""


class KubeRay:
    """The controller of one RayService; tests set its attributes while it runs."""

    def __init__(self, http: httpx.Client, namespace: str, name: str, cycle: float) -> None:
        self.head = Head.READY
        self.down = False
        self.suspended = False
        self.times_out = TimesOut.NOTHING
        # Write the status in each cycle, as with applications whose states change all the time.
        self.restless = False
        self._written = 0
        # By the model's uri or the application's name.
        self.outcomes: dict[str, Outcome] = {}
        # Uris of models that make Serve refuse the whole document.
        self.poison: set[str] = set()
        # Applications of which Serve says RUNNING while their replicas are being replaced.
        self.lost_replicas: set[str] = set()
        # Documents as Serve has taken them.
        self.documents: list[str] = []
        self.refusals = 0
        self.serve: dict[str, Serve] = {}
        self.cycle = cycle
        self.services_at = ""
        self._api = RayServices(http, namespace, name)
        # Names of RayClusters that were deleted by hand.
        self._deleted: set[str] = set()
        self._cache: dict[str, str] = {}
        # The version of rayClusterConfig, that of each cluster, and what differs on clusters of a version.
        self._version = 0
        self._versions: dict[str, int] = {}
        self._outcomes_of: dict[int, Mapping[str, Outcome]] = {0: {}}
        self._failures = 0
        self._retry_at = 0.0
        self._failed_at: object = None
        self._ended = threading.Event()

    def restart(self) -> None:
        """Forget what was put, as a restarted KubeRay has; the Ray clusters stay."""
        self._cache = {}

    def upgrade(self, outcomes: Mapping[str, Outcome] | None = None) -> None:
        """Behave as after a change of rayClusterConfig: prepare another RayCluster.

        There, `outcomes` stand above those of all clusters.
        """
        self._version = max(self._outcomes_of) + 1
        self._outcomes_of[self._version] = outcomes or {}

    def roll_back(self) -> None:
        """Behave as after the return to the first rayClusterConfig: prepare a RayCluster of that."""
        self._version = 0

    def merge_events(self) -> None:
        """Record events as KubeRay 1.7 does, whose recorder merges notes."""
        self._api.merges_notes = True

    def delete_clusters(self) -> None:
        """Delete all RayClusters by hand, and with them the pods behind the Services."""
        self._deleted |= self.serve.keys()
        self._forget_clusters()

    def details(self) -> dict[str, Any] | None:
        """Return what the dashboard answers to which the head Service leads; None if nobody is there."""
        serve = self.serve.get(self.services_at)
        return serve.details(self.lost_replicas) if serve and self.head is Head.READY else None

    def delete_services(self) -> None:
        """Take the head and the serve Service away."""
        self.services_at = ""

    def delete_application(self, name: str) -> None:
        """Delete an application in Ray, behind KubeRay's back."""
        for serve in self.serve.values():
            serve.applications.pop(name, None)

    def run(self) -> None:
        """Reconcile, cycle after cycle, until `end`."""
        while not self._ended.wait(self.cycle):
            if not self.down:
                self._reconcile_with_backoff()

    def end(self) -> None:
        """Make `run` return."""
        self._ended.set()

    def _reconcile_with_backoff(self) -> None:
        for serve in self.serve.values():
            serve.tick()
        state: object = None
        try:
            service = self._api.get()
            state = (service and service["metadata"]["generation"], self.head)
            if self._failures and state == self._failed_at and time.monotonic() < self._retry_at:
                return
            self.reconcile(service)
            self._failures = 0
        except (ReconcileError, httpx.HTTPError):
            self._failures += 1
            self._failed_at = state
            pause = FIRST_BACKOFF_SECONDS * 2 ** min(self._failures, 30)
            self._retry_at = time.monotonic() + min(pause, LONGEST_BACKOFF_SECONDS)

    def reconcile(self, service: dict[str, Any] | None) -> None:
        """Do once what KubeRay's `Reconcile` does; raises ReconcileError where it returns an error."""
        if service is None or "deletionTimestamp" in service["metadata"]:
            self._forget_clusters()
            if service is not None:
                self._api.replace(service, finalizers=[])
            return
        if FINALIZER not in service["metadata"].get("finalizers", []):
            self._api.replace(service, finalizers=[FINALIZER])
            return
        status = copy.deepcopy(service.get("status", {}))
        status["observedGeneration"] = service["metadata"]["generation"]
        if self.suspended:
            self._forget_clusters()
            suspended(status)
        else:
            resumed(status)
            self._calculate(service, status)
        if self.restless or is_worth_writing(service.get("status", {}), status):
            # A status that is the same in each second would be no change to the API server.
            self._written += 1
            ahead = self._written if self.restless else 0
            self._api.write_status(service, status | {"lastUpdateTime": now(ahead)})

    def _calculate(self, service: dict[str, Any], status: dict[str, Any]) -> None:
        named, pending = cluster_name(status, "active"), cluster_name(status, "pending")
        active = "" if named in self._deleted else named
        for name in filter(None, (active, pending)):
            if name not in self.serve:
                self._versions.setdefault(name, self._version)
                outcomes = ChainMap(self._outcomes_of[self._versions[name]], self.outcomes)
                self.serve[name] = Serve(outcomes, self.poison)
        if self.head is Head.MISSING and (active or pending):
            raise ReconcileError("found 0 head")
        newest = pending or active
        upgrade_due = bool(newest) and self._versions[newest] != self._version
        target = pending or ("" if upgrade_due else active)
        ready, applications = self._reconcile_serve(service, target) if target else (False, {})
        if ready:
            self.services_at = target
        for kind, name in (("active", named), ("pending", pending)):
            reported = applications if name and name == target else {}
            exists = {"state": "ready"} if name in self.serve else {}
            status[f"{kind}ServiceStatus"] = {
                "rayClusterName": name,
                "rayClusterStatus": exists,
                "applicationStatuses": reported,
            }
        if ready and target == pending:
            status["activeServiceStatus"] = status["pendingServiceStatus"]
            status["pendingServiceStatus"] = {}
            self.serve.pop(active, None)
        elif upgrade_due or not (active or pending):
            name = f"{service['metadata']['name']}-{secrets.token_hex(3)[:5]}"
            # Only named: KubeRay creates it in the next cycle, and writes no status because of that alone.
            status["pendingServiceStatus"] = {"rayClusterName": name, "rayClusterStatus": {}}
            self.serve.pop(pending, None)
        status["numServeEndpoints"] = int(bool(self.services_at) and self.head is Head.READY)
        calculate_conditions(status)
        is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])
        status["serviceStatus"] = "Running" if is_ready else ""

    def _reconcile_serve(self, service: dict[str, Any], cluster: str) -> tuple[bool, dict[str, Any]]:
        """Return whether all applications run, and their states as they were before a document is put."""
        if self.head is not Head.READY:
            return False, {}
        if self.times_out is TimesOut.STATUS:
            raise ReconcileError("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        applications = self.serve[cluster].report()
        ready = bool(applications) and all(app["status"] == "RUNNING" for app in applications.values())
        document = service["spec"].get("serveConfigV2", "")
        if document != self._cache.get(cluster) or not applications:
            self._put(service, cluster, document)
            if document:
                self._cache[cluster] = document
        return ready, applications

    def _put(self, service: dict[str, Any], cluster: str, document: str) -> None:
        place = f"the RayCluster {service['metadata']['namespace']}/{cluster}"
        try:
            self.serve[cluster].put(_parsed(document))
        except (RefusedDocumentError, yaml.YAMLError) as error:
            self.refusals += 1
            message = f"Failed to update serve applications to {place}: {_in_words(error)}"
            self._api.record(service, "Warning", "FailedToUpdateServeApplications", message)
            raise ReconcileError(message) from error
        self.documents.append(document)
        if self.times_out is TimesOut.PUT:
            late = "err: Put: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            message = f"Failed to update serve applications to {place}: {late}"
            self._api.record(service, "Warning", "FailedToUpdateServeApplications", message)
            raise ReconcileError(message)
        message = f"Updated serve applications to {place}"
        self._api.record(service, "Normal", "UpdatedServeApplications", message)

    def _forget_clusters(self) -> None:
        self.serve.clear()
        self._cache.clear()
        self.services_at = ""


def _parsed(document: str) -> Any:
    # Go's YAML parser, which KubeRay has, refuses what JSON allows.
    if _ESCAPED_SURROGATE.search(document.replace("\\\\", "")):
        raise yaml.YAMLError("yaml: found invalid Unicode character escape code")
    # All other JSON is YAML, and Python's YAML takes half a minute for a large document.
    return json.loads(document) if document.startswith("{") else yaml.safe_load(document) or {}


def _in_words(error: Exception) -> str:
    if isinstance(error, yaml.YAMLError):
        return f"error converting YAML to JSON: {error}"
    # `updateServeDeployment`, and `UpdateDeployments` of the dashboard's client.
    return (
        "fail to create / update Serve applications. If you observe this error consistently, please check "
        '"Issue 5: Fail to create / update Serve applications." in https://docs.ray.io/en/master/cluster/'
        "kubernetes/troubleshooting/rayservice-troubleshooting.html#kuberay-raysvc-troubleshoot for more "
        f"details. err: UpdateDeployments fail: 400 Bad Request {error}"
    )


@contextmanager
def kuberay(http: httpx.Client, namespace: str, name: str, cycle: float) -> Iterator[KubeRay]:
    """Run a controller for one RayService until the end of the block."""
    controller = KubeRay(http, namespace, name, cycle)
    thread = threading.Thread(target=controller.run, name=f"kuberay-{namespace}", daemon=True)
    thread.start()
    try:
        yield controller
    finally:
        controller.end()
        thread.join()
