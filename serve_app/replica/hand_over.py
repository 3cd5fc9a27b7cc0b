"""Hands the tallies of this process to Ray, whose agent on each node shows them to Prometheus.

Ray adds the labels of the application, the deployment and the replica, and the prefix `ray_`. Why nothing is
handed over during a request, and why not as histograms of Ray, is in docs/internals/metrics.md.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from ray.serve import metrics

from serve_app.replica.tallies import Counter, Gauge, Histogram, Labels, Tally

# Ray's workers report every 10 seconds, and forget the gauges that they have reported.
SECONDS: Final = 2.0

logger = logging.getLogger("ray.serve")


class HandOver:
    """Ray's metrics for `tallies`."""

    def __init__(self, tallies: Sequence[Tally]) -> None:
        self._parts = [_part_of(tally) for tally in tallies]

    def once(self) -> None:
        """Hand over what was added since the last time, and all that Ray forgets."""
        for part in self._parts:
            part.hand_over()

    async def run(self) -> None:
        """Do so every two seconds; a failure is logged, and never ends it."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                self.once()
            except Exception:
                logger.exception("metrics were not handed to Ray")


class _CounterOfRay:
    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._metric = metrics.Counter(counter.name, counter.text, counter.labels)
        self._handed_over: dict[Labels, float] = {}

    def hand_over(self) -> None:
        for labels, value in self._counter.values.items():
            # Ray refuses to add nothing.
            if added := value - self._handed_over.get(labels, 0):
                self._metric.inc(added, _named(self._counter.labels, labels))
                self._handed_over[labels] = value


class _HistogramOfRay:
    """A histogram as the series that Prometheus reads of one, each of them a gauge of Ray."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        name, text = histogram.name, histogram.text
        self._buckets = metrics.Gauge(f"{name}_bucket", text, ("le",))
        self._sum = metrics.Gauge(f"{name}_sum", text)
        self._count = metrics.Gauge(f"{name}_count", text)

    def hand_over(self) -> None:
        for boundary, count in self._histogram.buckets():
            self._buckets.set(count, {"le": boundary})
        self._sum.set(self._histogram.sum)
        self._count.set(self._histogram.count)


class _GaugeOfRay:
    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._metric = metrics.Gauge(gauge.name, gauge.text, gauge.labels)

    def hand_over(self) -> None:
        for labels, value in self._gauge.read().items():
            self._metric.set(value, _named(self._gauge.labels, labels))


def _part_of(tally: Tally) -> _CounterOfRay | _HistogramOfRay | _GaugeOfRay:
    if isinstance(tally, Counter):
        return _CounterOfRay(tally)
    return _HistogramOfRay(tally) if isinstance(tally, Histogram) else _GaugeOfRay(tally)


def _named(names: Sequence[str], values: Labels) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))
