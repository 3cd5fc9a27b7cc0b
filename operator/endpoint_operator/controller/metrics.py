"""The operator's Prometheus metrics."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from endpoint_operator.api.status import REASONS, REFUSALS, ModelEndpointStatus, Reason, Usage

_PREFIX = "model_endpoints_operator"


class _EndpointStates(Collector):
    """One series for each endpoint: whether it is ready, with its reason as a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._namespace = ""
        self._reasons: Mapping[str, Reason] = {}
        registry.register(self)

    def show(self, namespace: str, reasons: Mapping[str, Reason]) -> None:
        self._namespace, self._reasons = namespace, reasons

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "model_endpoints_endpoint_ready",
            "1 if the ModelEndpoint is ready; the reason is that of its conditions",
            labels=("namespace", "name", "reason"),
        )
        for name, reason in self._reasons.items():
            family.add_metric((self._namespace, name, reason), float(REASONS[reason].ready == "True"))
        yield family


# Bounds of a histogram of durations.
_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)

# What of the usage is shown of each endpoint.
_USAGE: Final = {
    "compute_seconds": "Seconds in which a replica ran the model",
    "replica_seconds": "Seconds in which there was a replica, as a sum over the replicas",
    "cost": "What the replicas have cost, by the price of their profile",
}


class _EndpointUsages(Collector):
    """Counters of each endpoint's usage, as its status has it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._namespace = ""
        self._usages: Mapping[str, Usage] = {}
        registry.register(self)

    def show(self, namespace: str, usages: Mapping[str, Usage]) -> None:
        self._namespace, self._usages = namespace, usages

    def collect(self) -> Iterator[CounterMetricFamily]:
        for member, text in _USAGE.items():
            family = CounterMetricFamily(
                f"model_endpoints_endpoint_{member}", text, labels=("namespace", "name")
            )
            for name, usage in self._usages.items():
                if (value := getattr(usage, member)) is not None:
                    family.add_metric((self._namespace, name), float(value))
            yield family


class Metrics:
    """All metrics, in registries of their own: one for who leads, and one for the work of the leader.

    Whoever does not lead knows nothing of the endpoints, and shows only that it does not lead.
    """

    def __init__(self, *, leads: bool = True) -> None:
        self.leads = leads
        self._own = CollectorRegistry()
        self._leader = Gauge(f"{_PREFIX}_leader", "1 if this operator leads, and writes", registry=self._own)
        self._registry = CollectorRegistry()
        self._states = _EndpointStates(self._registry)
        self._usages = _EndpointUsages(self._registry)
        self._endpoints = self._gauge("endpoints", "ModelEndpoints by the reason of their state", "reason")
        self._rejected = self._gauge("rejected_endpoints", "ModelEndpoints whose spec is not accepted")
        self.upgrade_blocking_endpoints = self._gauge(
            "upgrade_blocking_endpoints",
            "ModelEndpoints that the active Ray cluster serves and the pending one does not run",
        )
        self.renders = self._count("serve_config_renders", "Serve configs rendered")
        self.writes = self._count("serve_config_writes", "Serve configs written")
        self.status_writes = self._count("status_writes", "Statuses written")
        self.conflicts = self._count("conflicts", "Writes refused because the object had changed")
        self.rollbacks = self._count("rollbacks", "Versions taken out because they failed")
        self.drifts = self._count("drifts_corrected", "Edits of the Serve config undone")
        self.forced_pushes = self._count(
            "forced_pushes", "Serve configs written anew because Ray lacked an application"
        )
        self.incomplete_lists = self._count("incomplete_lists", "Lists that lacked ModelEndpoints that exist")
        self.errors = self._count("reconcile_errors", "Reconciliations that failed")
        self.events_dropped = self._count("events_dropped", "Events not created, to spare the API server")
        self.serve_config_bytes = self._gauge("serve_config_bytes", "Size of the Serve config")
        self.profiles_file_invalid = self._gauge(
            "profiles_file_invalid", "1 if the file of resource profiles cannot be used"
        )
        self.generation_lag = self._gauge(
            "rayservice_generation_lag", "Generations of the RayService that KubeRay has not observed yet"
        )
        self._last_success = self._gauge(
            "last_success_timestamp_seconds", "Unix time of the last success, or of the start"
        )
        self.seconds = self._histogram("reconcile_time_seconds", "Duration of a reconciliation")

    def show_endpoints(self, namespace: str, reasons: Mapping[str, Reason]) -> None:
        """Show the state of each endpoint, and count them by reason."""
        self._states.show(namespace, reasons)
        counted = Counter(reasons.values())
        for reason in Reason:
            self._endpoints.labels(reason).set(counted[reason])
        self._rejected.set(sum(counted[reason] for reason in REFUSALS))

    def show_usages(self, namespace: str, statuses: Mapping[str, ModelEndpointStatus]) -> None:
        """Show what each endpoint has used, of those of which it is known."""
        usages = {name: status.usage for name, status in statuses.items() if status.usage is not None}
        self._usages.show(namespace, usages)

    def exposition(self, last_success: float) -> bytes:
        """Return the metrics in Prometheus' text format; `last_success` is a Unix time."""
        self._leader.set(self.leads)
        self._last_success.set(last_success)
        own = generate_latest(self._own)
        return own + generate_latest(self._registry) if self.leads else own

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", text, registry=self._registry, buckets=_SECONDS)

    def _count(self, name: str, text: str, labels: Iterable[str] = ()) -> Count:
        return Count(f"{_PREFIX}_{name}", text, labels, registry=self._registry)
