"""Which connections exist, and which of them have taken too long: before they prove a key, or to accept data."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from tom_relay.server.config import RelayServerConfig

if TYPE_CHECKING:
    from tom_relay.server.connection import RelayConnection
    from tom_relay.server.hub import RelayClient, RelayHub


PROGRESS = 16 << 10
"""Bytes within the write time-out that show that a client reads. One that takes less is of no use to those who send to
it, and would hold its queue for ever."""


@attrs.define
class GateCounters:
    """What happened to connections since the start, for metrics."""

    accepted: int = 0
    refused: dict[str, int] = attrs.Factory(lambda: {"pending": 0, "pending_host": 0})
    handshake_timeouts: int = 0
    write_timeouts: int = 0


@attrs.define(eq=False)
class Gate:
    """Admits connections and ends those that are late; wakes those for which something waits.

    A connection is pending until its key is proven; plain HTTP requests never prove one and must be done in that time.
    """

    config: RelayServerConfig
    loop: asyncio.AbstractEventLoop
    hub: RelayHub | None = None
    counters: GateCounters = attrs.Factory(GateCounters)
    pending: dict[RelayConnection, None] = attrs.Factory(dict)
    proven: dict[RelayClient, RelayConnection] = attrs.Factory(dict)
    _hosts: Counter[str] = attrs.Factory(Counter)
    _waiting: list[RelayConnection] = attrs.Factory(list)

    def admit(self, connection: RelayConnection) -> bool:
        """Whether a new connection may stay."""
        host = connection.host
        if len(self.pending) >= self.config.max_pending:
            self.counters.refused["pending"] += 1
            return False
        if self._hosts[host] >= self.config.max_pending_per_host:
            self.counters.refused["pending_host"] += 1
            return False
        self.counters.accepted += 1
        self._hosts[host] += 1
        self.pending[connection] = None
        return True

    def prove(self, connection: RelayConnection, client: RelayClient) -> None:
        """A connection's key is proven."""
        self._settle(connection)
        connection.client = client
        self.proven[client] = connection
        self.wake(connection)

    def leave(self, connection: RelayConnection) -> None:
        """A connection has ended."""
        self._settle(connection)
        if connection.client is not None:
            self.proven.pop(connection.client, None)

    def _settle(self, connection: RelayConnection) -> None:
        if connection in self.pending:
            del self.pending[connection]
            self._hosts[connection.host] -= 1
            if not self._hosts[connection.host]:
                del self._hosts[connection.host]

    def queued(self, client: RelayClient) -> None:
        """Something waits for a client."""
        connection = self.proven.get(client)
        if connection is not None:
            self.wake(connection)

    def wake(self, connection: RelayConnection) -> None:
        """Write to a connection at the end of this turn of the loop, with all that comes until then."""
        if not self._waiting:
            self.loop.call_soon(self._flush)
        self._waiting.append(connection)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        assert self.hub is not None
        for connection in waiting:
            connection.flush(self.hub)

    def sweep(self, now: float) -> None:
        """End connections that took too long."""
        for connection in [c for c in self.pending if now - c.opened_at >= self.config.handshake_timeout]:
            self.counters.handshake_timeouts += 1
            self._settle(connection)  # it takes a moment to go, and is counted once
            connection.abort()
        # A pending one that reads nothing is ended above.
        limit = self.config.write_timeout
        for connection in list(self.proven.values()):
            if connection.paused_at is None:
                continue
            acknowledged = connection.bytes_acknowledged()
            if acknowledged is not None and acknowledged - (connection.acknowledged or 0) >= PROGRESS:
                connection.paused_at, connection.acknowledged = now, acknowledged
            elif now - connection.paused_at >= limit:
                self.counters.write_timeouts += 1
                connection.paused_at = None
                connection.abort()
