"""Which TCP connections may be, and for how long one may take over its request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

from aiohttp import web

from tom_connect.serving.sources import source_prefix
from tom_signaling_legacy.core.rates import SourceRates
from tom_signaling_legacy.server.config import SignalingServerConfig

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
WRITE_BUFFER = 65_536
"""Bytes that the transport holds for a client before it says that it is full; the rest waits in the hub's queue."""


class Gate:
    """Admits connections, and ends those whose request does not come."""

    def __init__(self, config: SignalingServerConfig) -> None:
        self.connections: dict[SignalingConnection, None] = {}
        self.counts: Counter[str] = Counter()
        """Connections "accepted", "refused" and "late"."""
        self._config = config
        self._rates = SourceRates(config.connect_rate, config.connect_burst)
        self._sources: Counter[str] = Counter()

    def admit(self, connection: SignalingConnection, now: float) -> bool:
        """Whether a new connection may stay; `now`: the loop's time."""
        config, source = self._config, connection.source
        if (
            len(self.connections) >= config.max_clients
            or self._sources[source] >= config.max_clients_per_source
            or not self._rates.take(source, now)
        ):
            self.counts["refused"] += 1
            return False
        self.counts["accepted"] += 1
        self._sources[source] += 1
        self.connections[connection] = None
        return True

    def leave(self, connection: SignalingConnection) -> None:
        """A connection has ended."""
        if self.connections.pop(connection, connection) is None:
            self._sources[connection.source] -= 1
            if not self._sources[connection.source]:
                del self._sources[connection.source]

    def sweep(self, now: float) -> None:
        """End connections whose request took too long."""
        for connection in list(self.connections):
            if connection.since is not None and now - connection.since >= self._config.handshake_timeout:
                self.counts["late"] += 1
                connection.abort()


class SignalingConnection(web.RequestHandler):
    """A connection as aiohttp's protocol, counted and timed until its request has come in."""

    __slots__ = ("_gate", "refused", "since", "source")

    def __init__(self, manager: web.Server, gate: Gate, **options: Any) -> None:
        super().__init__(manager, **options)
        self._gate = gate
        self.since: float | None = None
        """When the wait for a request began, None once it has come in."""
        self.refused = False
        self.source = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or say with HTTP that we are full."""
        # uvloop's transports are no asyncio.Transport, and do the same.
        transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.source = source_prefix(str(peer[0])) if isinstance(peer, tuple) and peer else ""
        self.since = self._loop.time()
        self.refused = not self._gate.admit(self, self.since)
        if self.refused:
            transport.write(_FULL)
            transport.close()
        else:
            transport.set_write_buffer_limits(high=WRITE_BUFFER)
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._gate.leave(self)
        if not self.refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on, unless the connection was refused."""
        if not self.refused:
            super().data_received(data)

    def request_came(self) -> None:
        """The request has come in."""
        self.since = None

    def abort(self) -> None:
        """End the connection now, whatever waits."""
        if self.transport is not None:
            self.transport.abort()
