"""What the operator counts, for Prometheus."""

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Count

from endpoint_operator.endpoint_status import REFUSALS, Reason

_PREFIX = "model_endpoints_operator"


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._endpoints = self._gauge(
            "endpoints", "ModelEndpoints by the reason of their Ready condition", "reason"
        )
        self._rejected = self._gauge("rejected_endpoints", "ModelEndpoints whose spec is not accepted")
        self.renders = self._count("renders", "Serve configs rendered")
        self.writes = self._count("writes", "Serve configs written")
        self.status_writes = self._count("status_writes", "Statuses written")
        self.conflicts = self._count("conflicts", "Writes refused because the object had changed")
        self.rollbacks = self._count("rollbacks", "Versions taken back because they failed")
        self.drifts = self._count("drifts_corrected", "Edits of the Serve config undone")
        self.forced_pushes = self._count(
            "forced_pushes", "Serve configs written anew because Ray lacked an application"
        )
        self.doubtful_lists = self._count("doubtful_lists", "Lists that lacked ModelEndpoints that exist")
        self.failures = self._count("failed_loops", "Looks at the cluster that failed")
        self.events_dropped = self._count("events_dropped", "Events not created, to spare the API server")
        self.document_bytes = self._gauge("document_bytes", "Size of the Serve config")
        self.catalogue_broken = self._gauge("catalogue_broken", "1 if the file of profiles cannot be used")
        self.target_behind = self._gauge("target_behind", "1 if KubeRay has not followed the last change")
        self._age = self._gauge(
            "last_success_age_seconds", "Age of the last look at the cluster that succeeded"
        )
        self.seconds = Histogram(
            f"{_PREFIX}_loop_seconds",
            "Duration of a look at the cluster",
            registry=self._registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
        )

    def show_endpoints(self, reasons: Mapping[str, Reason]) -> None:
        """Take over why each endpoint is as it is."""
        counted = Counter(reasons.values())
        for reason in Reason:
            self._endpoints.labels(reason).set(counted[reason])
        self._rejected.set(sum(counted[reason] for reason in REFUSALS))

    def exposition(self, age: float) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._age.set(age)
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self._registry)

    def _count(self, name: str, text: str, labels: Iterable[str] = ()) -> Count:
        return Count(f"{_PREFIX}_{name}", text, labels, registry=self._registry)
