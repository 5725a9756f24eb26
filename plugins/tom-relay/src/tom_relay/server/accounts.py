"""Keeps the contribution statistics up to date with the hub, and in a file if one is configured."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import attrs

from tom_relay.server.config import RelayServerConfig
from tom_relay.server.contributions import Contribution, Ledger
from tom_relay.server.hub import RelayClient, RelayHub
from tom_relay.server.statsfile import StatsFile

logger = logging.getLogger("tom_connect.plugin.relay-server")

UPDATE_INTERVAL = 5.0
"""Seconds between two updates from the hub's counters."""
SAVE_INTERVAL = 60.0
"""Seconds between two savings: what a crash may lose."""


@attrs.define
class _Seen:
    """What of a client's counters is in the ledger already, and until when its uptime is."""

    until: float
    sent_packets: int = 0
    sent_bytes: int = 0
    undelivered: int = 0


class Accounts:
    """The ledger of a running server."""

    def __init__(self, config: RelayServerConfig, hub: RelayHub, wall: Callable[[], float] = time.time) -> None:
        self.ledger = Ledger(config.stats_nodes)
        self._hub = hub
        self._wall = wall
        self._file = StatsFile(config.stats_file) if config.stats_file is not None else None
        self._seen: dict[RelayClient, _Seen] = {}
        self._relay_seen = _Seen(wall())
        self._update_due = self._save_due = 0.0

    async def open(self) -> None:
        """Read the file; raises RelayServerError if it can't be used."""
        if self._file is not None:
            await asyncio.to_thread(self._file.open, self.ledger)
        self.ledger.relay.sessions += 1
        self._relay_seen.until = self._wall()

    async def close(self) -> None:
        """Write what changed, and close the file."""
        self.update()
        if self._file is not None:
            try:
                await asyncio.to_thread(self._file.close, self._state())
            except OSError as exc:
                logger.warning("statistics are not saved: %s", exc)

    def begin(self, client: RelayClient) -> None:
        """A session begins."""
        now = self._wall()
        self.ledger.touch(client.key, now).sessions += 1
        self._seen[client] = _Seen(now)

    def end(self, client: RelayClient) -> None:
        """A session ends."""
        if client in self._seen:
            self._update(client, self._wall(), force=True)
            del self._seen[client]

    def update(self) -> None:
        """Take over what the hub counted since the last time."""
        now = self._wall()
        for client in self._seen:
            self._update(client, now)
        counters, relay, seen = self._hub.counters, self.ledger.relay, self._relay_seen
        failed = sum(counters.dropped.values())
        relay.uptime += max(0.0, now - seen.until)
        seen.until = now
        if counters.relayed.packets != seen.sent_packets or failed != seen.undelivered:
            relay.relayed_packets += counters.relayed.packets - seen.sent_packets
            relay.delivered += counters.relayed.packets - seen.sent_packets
            relay.relayed_bytes += counters.relayed.bytes - seen.sent_bytes
            relay.failed += failed - seen.undelivered
            relay.last_active = now
            seen.sent_packets, seen.sent_bytes, seen.undelivered = (
                counters.relayed.packets,
                counters.relayed.bytes,
                failed,
            )
        relay.update_role(now)

    def _update(self, client: RelayClient, now: float, *, force: bool = False) -> None:
        seen = self._seen[client]
        moved = client.sent.packets != seen.sent_packets or client.undelivered != seen.undelivered
        entry = self.ledger.touch(client.key, now) if moved or force else self.ledger.get(client.key)
        if entry is None:  # forgotten for others; it comes back when it does something
            return
        entry.uptime += max(0.0, now - seen.until)
        seen.until = now
        entry.own_packets += client.sent.packets - seen.sent_packets
        entry.own_bytes += client.sent.bytes - seen.sent_bytes
        entry.delivered += client.sent.packets - seen.sent_packets
        entry.failed += client.undelivered - seen.undelivered
        seen.sent_packets, seen.sent_bytes = client.sent.packets, client.sent.bytes
        seen.undelivered = client.undelivered
        entry.update_role(now)

    async def tick(self, now: float) -> None:
        """Update and save when it is time; `now`: monotonic seconds."""
        if now >= self._update_due:
            self._update_due = now + UPDATE_INTERVAL
            self.update()
        if self._file is not None and now >= self._save_due:
            self._save_due = now + SAVE_INTERVAL
            try:
                await asyncio.to_thread(self._file.save, self._state())
            except OSError as exc:
                logger.warning("statistics are not saved: %s", exc)

    def _state(self) -> list[tuple[bytes, Contribution]]:
        return [*self.ledger.take_changed(), (b"", attrs.evolve(self.ledger.relay))]

    def describe(self, key: bytes, entry: Contribution) -> dict[str, Any]:
        """An entry as `/stats` shows it."""
        now = self._wall()
        values = attrs.asdict(entry)
        values |= {
            "role": entry.role.value,
            "score": round(entry.score(now), 3),
            "success_rate": round(entry.success_rate, 4),
            "uptime": round(entry.uptime, 1),
        }
        return {"node_id": key.hex(), **values} if key else values
