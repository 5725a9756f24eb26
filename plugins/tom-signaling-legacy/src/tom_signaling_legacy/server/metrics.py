"""The server's metrics for Prometheus, in a registry of their own; no label names a node or a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from tom_signaling_legacy.server.server import SignalingServer

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "tom_signaling_"


class SignalingMetrics(Collector):
    """Reads the server's counters when it is asked."""

    def __init__(self, server: SignalingServer) -> None:
        self._server = server
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
        hub, gate = self._server.hub, self._server.gate
        yield GaugeMetricFamily(PREFIX + "nodes", "Nodes registered", value=len(hub))
        yield GaugeMetricFamily(PREFIX + "clients", "WebSockets open, registered or not", value=hub.clients)
        yield GaugeMetricFamily(PREFIX + "connections", "Connections now", value=len(gate.connections))
        yield GaugeMetricFamily(
            PREFIX + "start_time_seconds", "When the server started, seconds since 1970", value=self._server.started_at
        )
        yield _by("messages", "Messages from clients, by type", "type", hub.counts)
        yield _by("passed_on", "Signals that reached a node, by what they carry", "payload", hub.passed_on)
        yield _by("ended", "Clients that were ended, by reason", "reason", hub.ended)
        yield _by("seen_connections", "Connections, by what became of them", "outcome", gate.counts)


def _by(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
