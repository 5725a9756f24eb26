"""Which connections may be, and for how long one may take over a request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, cast

import attrs
from aiohttp import web

from tom_connect.serving.sources import source_prefix
from tom_pkarr.server.config import PkarrServerConfig

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@attrs.define(eq=False)
class Gate:
    """Admits connections and ends those that are late: in sending a request, or in taking an answer."""

    config: PkarrServerConfig
    accepted: int = 0
    refused: int = 0
    late: int = 0
    connections: dict[PkarrConnection, None] = attrs.Factory(dict)
    _sources: Counter[str] = attrs.Factory(Counter)

    def admit(self, connection: PkarrConnection) -> bool:
        """Whether a new connection may stay."""
        config, source = self.config, connection.source
        # Behind a proxy all come from one place: then only the total counts.
        alone = not config.trusted_proxies
        if len(self.connections) >= config.max_connections or (
            alone and self._sources[source] >= config.max_connections_per_source
        ):
            self.refused += 1
            return False
        self.accepted += 1
        self._sources[source] += 1
        self.connections[connection] = None
        return True

    def leave(self, connection: PkarrConnection) -> None:
        """A connection has ended."""
        if self.connections.pop(connection, connection) is None:
            self._sources[connection.source] -= 1
            if not self._sources[connection.source]:
                del self._sources[connection.source]

    def sweep(self, now: float) -> None:
        """End connections that took too long; `now`: the loop's time."""
        for connection in [c for c in self.connections if c.is_late(now, self.config.request_timeout)]:
            self.late += 1
            connection.abort()


class PkarrConnection(web.RequestHandler):
    """A connection as aiohttp's protocol, counted and timed."""

    __slots__ = ("_gate", "_paused_at", "_since", "refused", "source")

    def __init__(self, manager: web.Server, gate: Gate, **options: Any) -> None:
        super().__init__(manager, **options)
        self._gate = gate
        self._since: float | None = None
        """When the request that is coming in began, None between requests."""
        self._paused_at: float | None = None
        self.refused = False
        self.source = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or say with HTTP that we are full."""
        # uvloop's transports are no asyncio.Transport, and do the same.
        transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.source = source_prefix(str(peer[0])) if isinstance(peer, tuple) and peer else ""
        self._since = self._loop.time()
        self.refused = not self._gate.admit(self)
        if self.refused:
            transport.write(_FULL)
            transport.close()
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._gate.leave(self)
        if not self.refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on; the first of a request starts its time."""
        if self.refused:
            return
        if self._since is None:
            self._since = self._loop.time()
        super().data_received(data)

    def request_came(self) -> None:
        """A request has come in whole."""
        self._since = None

    def pause_writing(self) -> None:
        """The other side does not read what we answered."""
        super().pause_writing()
        self._paused_at = self._loop.time()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._paused_at = None

    def is_late(self, now: float, limit: float) -> bool:
        """Whether a request or the reading of an answer takes longer than `limit` seconds."""
        return any(since is not None and now - since >= limit for since in (self._since, self._paused_at))

    def abort(self) -> None:
        """End the connection now."""
        if self.transport is not None:
            self.transport.abort()
