"""The relay's metrics for Prometheus, in a registry of their own; no label names a node or a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from tom_pkarr.server.server import PkarrRelay

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "tom_pkarr_"


class PkarrMetrics(Collector):
    """Reads the relay's counters when it is asked."""

    def __init__(self, relay: PkarrRelay) -> None:
        self._relay = relay
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self.registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when they are collected."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        relay = self._relay
        store, gate, counters = relay.store, relay.gate, relay.site.counters
        yield _gauge("packets", "Packets kept", store.packets)
        yield _gauge("packet_bytes", "Their bytes", store.bytes)
        yield _gauge("hot_packets", "Packets in memory", len(relay.hot))
        yield _gauge("start_time_seconds", "When the relay started, seconds since 1970", relay.started_at)
        yield _gauge("connections", "Connections now", len(gate.connections))
        yield _counter("evicted", "Packets that went as there were too many", store.evicted)
        yield _counter("expired", "Packets that went as nobody put them again", store.expired)
        yield _counter("accepted_connections", "Connections let in", gate.accepted)
        yield _counter("refused_connections", "Connections refused, as there were too many", gate.refused)
        yield _counter("late_connections", "Connections ended as a request or answer took too long", gate.late)
        yield _counter("store_failures", "Requests that the store failed", relay.failures)
        requests = CounterMetricFamily(PREFIX + "requests", "Requests answered", labels=["method", "status"])
        for (method, status), count in sorted(counters.answers.items()):
            requests.add_metric([method, str(status)], count)
        yield requests
        yield _by("bad_puts", "Packets refused", "reason", counters.bad_puts)
        if relay.dht is not None:
            yield _by("dht_lookups", "Look-ups in the DHT", "outcome", relay.dht.lookups)
            yield _by("dht_published", "Packets published in the DHT", "outcome", relay.dht.published)
            yield _gauge("dht_waiting", "Packets that wait to be published", relay.dht.waiting)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _by(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
