"""The relay's metrics for Prometheus; no label names a node or a source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from tom_connect.serving.metrics import ServerMetrics

if TYPE_CHECKING:
    from tom_pkarr.server.server import PkarrRelay


class PkarrMetrics(ServerMetrics):
    """Reads the relay's counters when it is asked."""

    def __init__(self, relay: PkarrRelay) -> None:
        super().__init__("tom_pkarr_")
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        relay = self._relay
        store, gate, counters = relay.store, relay.gate, relay.site.counters
        yield self.gauge("packets", "Packets kept", store.packets)
        yield self.gauge("packet_bytes", "Their bytes", store.bytes)
        yield self.gauge("hot_packets", "Packets in memory", len(relay.hot))
        yield self.gauge("start_time_seconds", "When the relay started, seconds since 1970", relay.started_at)
        yield self.gauge("connections", "Connections now", len(gate.connections))
        yield self.counter("evicted", "Packets that went as there were too many", store.evicted)
        yield self.counter("expired", "Packets that went as nobody put them again", store.expired)
        yield self.counter("accepted_connections", "Connections let in", gate.accepted)
        yield self.counter("refused_connections", "Connections refused, as there were too many", gate.refused)
        yield self.counter("late_connections", "Connections ended as a request or answer took too long", gate.late)
        yield self.counter("store_failures", "Requests that the store failed", relay.failures)
        answers = (((method, str(status)), count) for (method, status), count in counters.answers.items())
        yield self.by_all("requests", "Requests answered", ("method", "status"), answers)
        yield self.by("bad_puts", "Packets refused", "reason", counters.bad_puts)
        if relay.dht is not None:
            yield self.by("dht_lookups", "Look-ups in the DHT", "outcome", relay.dht.lookups)
            yield self.by("dht_published", "Packets published in the DHT", "outcome", relay.dht.published)
            yield self.gauge("dht_waiting", "Packets that wait to be published", relay.dht.waiting)
