"""What a server of a plugin counts, as metrics for Prometheus in a registry of their own.

Needs prometheus_client, which plugins with servers bring.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The media type of what `ServerMetrics.text` returns."""


class ServerMetrics(Collector):
    """Reads a server's counters when it is asked: counting costs the server no more than an addition.

    `prefix`: what each name begins with, such as `tom_relay_`. A subclass says in `collect` what there is; no label
    names a node or a source.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when they are collected."""
        return ()

    @abstractmethod
    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""

    def gauge(self, name: str, text: str, value: float) -> Metric:
        """What may rise and fall."""
        return GaugeMetricFamily(self._prefix + name, text, value=value)

    def counter(self, name: str, text: str, value: float) -> Metric:
        """What only grows; its name ends with `_total` when it is shown."""
        return CounterMetricFamily(self._prefix + name, text, value=value)

    def by(self, name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
        """Counters that differ in one label."""
        return self.by_all(name, text, (label,), (((key,), value) for key, value in values.items()))

    def by_all(
        self, name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], int]]
    ) -> Metric:
        """Counters that differ in several labels: what each has for the labels, in their order, and its value."""
        family = CounterMetricFamily(self._prefix + name, text, labels=labels)
        for key, value in sorted(values):
            family.add_metric(key, value)
        return family
