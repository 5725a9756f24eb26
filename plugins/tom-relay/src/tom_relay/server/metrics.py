"""The server's metrics for Prometheus, in a registry of their own; no label names a node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from tom_relay.server.server import RelayServer

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "tom_relay_"


class RelayMetrics(Collector):
    """Reads the server's counters when it is asked: counting a packet costs no more than an addition."""

    def __init__(self, server: RelayServer) -> None:
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
        server = self._server
        hub, gate, sessions = server.hub.counters, server.gate.counters, server.sessions.counters
        yield _gauge("clients", "Nodes connected, displaced connections included", len(server.hub))
        yield _gauge("pending_connections", "Connections that have not proven a key", len(server.gate.pending))
        yield _gauge("queued_bytes", "Bytes that wait for clients", server.hub.queued_bytes)
        yield _gauge("start_time_seconds", "When the server started, seconds since 1970", server.started_at)
        yield _gauge("statistics_nodes", "Nodes of which statistics are kept", len(server.accounts.ledger))
        yield _counter("connections", "TCP connections let in", gate.accepted)
        yield _by("connections_refused", "TCP connections refused", "reason", gate.refused)
        yield _counter("handshake_timeouts", "Connections that proved no key in time", gate.handshake_timeouts)
        yield _counter("write_timeouts", "Clients ended as they accepted no data", gate.write_timeouts)
        yield _counter("upgrade_requests", "Requests for a relay session", sessions.upgrades)
        yield _by("bad_requests", "Such requests that were no WebSocket of ours", "reason", sessions.bad_requests)
        yield _counter("interrupted", "Sessions that ended while they were written to", sessions.gone)
        yield _by("authenticated", "Sessions begun, by dialect", "dialect", sessions.authenticated)
        yield _by("denied", "Sessions refused in the handshake", "reason", sessions.denied)
        yield _by("violations", "Sessions ended for a breach of the protocol", "kind", sessions.violations)
        yield _counter("replaced", "Sessions displaced by one of the same key", hub.replaced)
        yield _counter("silent", "Sessions ended as no ping was answered", hub.silent)
        yield _counter("received_frames", "Messages from clients", hub.frames_received)
        yield _counter("received_bytes", "Their bytes", hub.bytes_received)
        yield _counter("relayed_packets", "Datagrams passed on", hub.relayed.packets)
        yield _counter("relayed_bytes", "Their bytes", hub.relayed.bytes)
        yield _by("dropped_packets", "Datagrams dropped", "reason", hub.dropped)
        yield _counter("throttled", "Messages after which a client had to wait", hub.throttled)
        yield _counter("rate_limit_notices", "Clients told that they are limited", hub.told_limited)
        yield _by("address_questions", "Questions for a node's address", "outcome", hub.addresses)
        yield _counter("endpoint_gone", "EndpointGone frames", hub.endpoint_gone)
        for name, counts in server.udp.counters.items():
            yield _by(f"{name}_datagrams", f"What became of datagrams to {name.upper()}", "outcome", counts)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _by(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
