"""The server's metrics for Prometheus; no label names a node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from tom_connect.serving.metrics import ServerMetrics

if TYPE_CHECKING:
    from tom_relay.server.server import RelayServer


class RelayMetrics(ServerMetrics):
    """Reads the server's counters when it is asked: counting a packet costs no more than an addition."""

    def __init__(self, server: RelayServer) -> None:
        super().__init__("tom_relay_")
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        server = self._server
        hub, gate, sessions = server.hub.counters, server.gate.counters, server.sessions.counters
        yield self.gauge("clients", "Nodes connected, displaced connections included", len(server.hub))
        yield self.gauge("pending_connections", "Connections that have not proven a key", len(server.gate.pending))
        yield self.gauge("queued_bytes", "Bytes that wait for clients", server.hub.queued_bytes)
        yield self.gauge("start_time_seconds", "When the server started, seconds since 1970", server.started_at)
        yield self.gauge("statistics_nodes", "Nodes of which statistics are kept", len(server.accounts.ledger))
        yield self.counter("connections", "TCP connections let in", gate.accepted)
        yield self.by("connections_refused", "TCP connections refused", "reason", gate.refused)
        yield self.counter("handshake_timeouts", "Connections that proved no key in time", gate.handshake_timeouts)
        yield self.counter("write_timeouts", "Clients ended as they accepted no data", gate.write_timeouts)
        yield self.counter("upgrade_requests", "Requests for a relay session", sessions.upgrades)
        yield self.by("bad_requests", "Such requests that were no WebSocket of ours", "reason", sessions.bad_requests)
        yield self.counter("interrupted", "Sessions that ended while they were written to", sessions.gone)
        yield self.by("authenticated", "Sessions begun, by dialect", "dialect", sessions.authenticated)
        yield self.by("denied", "Sessions refused in the handshake", "reason", sessions.denied)
        yield self.by("violations", "Sessions ended for a breach of the protocol", "kind", sessions.violations)
        yield self.gauge("quic_sessions", "Sessions over QUIC now", len(server.quic))
        yield self.by("quic_events", "What became of QUIC connections and datagrams", "outcome", server.quic.counters)
        yield self.counter("replaced", "Sessions displaced by one of the same key", hub.replaced)
        yield self.counter("silent", "Sessions ended as no ping was answered", hub.silent)
        yield self.counter("received_frames", "Messages from clients", hub.frames_received)
        yield self.counter("received_bytes", "Their bytes", hub.bytes_received)
        yield self.counter("relayed_packets", "Datagrams passed on", hub.relayed.packets)
        yield self.counter("relayed_bytes", "Their bytes", hub.relayed.bytes)
        yield self.by("dropped_packets", "Datagrams dropped", "reason", hub.dropped)
        yield self.counter("throttled", "Messages after which a client had to wait", hub.throttled)
        yield self.counter("rate_limit_notices", "Clients told that they are limited", hub.told_limited)
        yield self.by("address_questions", "Questions for a node's address", "outcome", hub.addresses)
        yield self.counter("endpoint_gone", "EndpointGone frames", hub.endpoint_gone)
        for name, counts in server.udp.counters.items():
            yield self.by(f"{name}_datagrams", f"What became of datagrams to {name.upper()}", "outcome", counts)
