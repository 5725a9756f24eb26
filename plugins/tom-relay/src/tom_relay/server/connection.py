"""One TCP connection: admitted or not, timed until its key is proven, written to in batches.

aiohttp speaks HTTP and reads WebSocket messages. Data goes out here instead: an unmasked frame without compression is a
head and the message (RFC 6455 section 5.2), so that all that waits for a client leaves in one write, and what the
kernel does not take stays in the hub's bounded queue.

Whether a client reads can't be seen from what the kernel takes: it has megabytes of its own, and says nothing while a
steady reader empties them. So it is told to hold little that is not on its way, and asked what was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from tom_relay.server.origin import host_of

if TYPE_CHECKING:
    from tom_relay.server.gate import Gate
    from tom_relay.server.hub import RelayClient, RelayHub

WRITE_CHUNK = 65_536
"""Bytes in one write, about; what the transport's buffer holds before it says that it is full."""
NOT_SENT = 128 << 10
"""Bytes that the kernel holds besides those on their way; more would only wait there, out of sight."""
_BINARY = 0x82
_BYTES_ACKED = slice(120, 128)
"""Where `struct tcp_info` of Linux has `tcpi_bytes_acked` (linux/tcp.h), since 4.1."""


class RelayConnection(web.RequestHandler):
    """A connection as aiohttp's protocol, with its client once that has proven its key."""

    __slots__ = ("_gate", "acknowledged", "client", "host", "opened_at", "paused_at", "refused")

    def __init__(self, manager: web.Server, gate: Gate, **options: Any) -> None:
        super().__init__(manager, **options)
        self._gate = gate
        self.client: RelayClient | None = None
        self.host = ""
        self.opened_at = 0.0
        self.paused_at: float | None = None
        """Since when the client has taken nothing worth mentioning; None while it takes what there is."""
        self.acknowledged: int | None = None
        self.refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or say with HTTP that we are full."""
        # uvloop's transports are no asyncio.Transport, and do the same.
        transport = cast(asyncio.Transport, transport)
        self.host = host_of(transport.get_extra_info("peername"))
        self.opened_at = self._loop.time()
        transport.set_write_buffer_limits(high=WRITE_CHUNK)
        _hold_little(transport)
        self.refused = not self._gate.admit(self)
        if self.refused:
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            transport.close()
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on, unless the connection was refused."""
        if not self.refused:
            super().data_received(data)

    def pause_writing(self) -> None:
        """The transport is full: the hub's queue takes over, and a time-out begins."""
        super().pause_writing()
        self.paused_at = self._loop.time()
        self.acknowledged = self.bytes_acknowledged()

    def resume_writing(self) -> None:
        """The transport has room again."""
        super().resume_writing()
        self.paused_at = None
        if self.client is not None:
            self._gate.wake(self)

    def flush(self, hub: RelayHub) -> None:
        """Write what waits for the client, as far as the transport takes it."""
        client = self.client
        while client is not None and client.queue and self.paused_at is None:
            transport = self.transport
            if transport is None or transport.is_closing():
                return
            parts = []
            for message in hub.take(client, WRITE_CHUNK):
                size = len(message)
                if size < 126:
                    parts.append(b"%c%c" % (_BINARY, size))
                elif size < 65_536:
                    parts.append(b"%c\x7e%b" % (_BINARY, size.to_bytes(2, "big")))
                else:
                    parts.append(b"%c\x7f%b" % (_BINARY, size.to_bytes(8, "big")))
                parts.append(message)
            transport.write(b"".join(parts))

    def bytes_acknowledged(self) -> int | None:
        """Bytes that the client's system has taken since the start; None where ours does not say."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.stop)
        except (OSError, TypeError):
            return None
        return int.from_bytes(info[_BYTES_ACKED], sys.byteorder) if len(info) == _BYTES_ACKED.stop else None

    def abort(self) -> None:
        """End the connection now, whatever waits."""
        if self.transport is not None:
            self.transport.abort()


def _hold_little(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with contextlib.suppress(OSError, TypeError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
