"""The server's metrics for Prometheus; no label names a node or a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from tom_connect.serving.metrics import ServerMetrics

if TYPE_CHECKING:
    from tom_signaling_legacy.server.server import SignalingServer


class SignalingMetrics(ServerMetrics):
    """Reads the server's counters when it is asked."""

    def __init__(self, server: SignalingServer) -> None:
        super().__init__("tom_signaling_")
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        hub, gate = self._server.hub, self._server.gate
        yield self.gauge("nodes", "Nodes registered", len(hub))
        yield self.gauge("clients", "WebSockets open, registered or not", hub.clients)
        yield self.gauge("connections", "Connections now", len(gate.connections))
        yield self.gauge("start_time_seconds", "When the server started, seconds since 1970", self._server.started_at)
        yield self.by("messages", "Messages from clients, by type", "type", hub.counts)
        yield self.by("passed_on", "Signals that reached a node, by what they carry", "payload", hub.passed_on)
        yield self.by("ended", "Clients that were ended, by reason", "reason", hub.ended)
        yield self.by("seen_connections", "Connections, by what became of them", "outcome", gate.counts)
