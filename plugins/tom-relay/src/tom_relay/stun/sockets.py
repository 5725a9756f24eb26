"""UDP sockets of the address discovery servers."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

from tom_connect.addr import SocketAddr
from tom_relay.errors import RelayServerError

Received = Callable[["Listener", bytes, SocketAddr], None]


class Listener(asyncio.DatagramProtocol):
    """One bound socket. `received` gets each datagram; it must not raise."""

    def __init__(self, received: Received, counters: Counter[str]) -> None:
        self._received = received
        self._counters = counters
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False
        self._closed = asyncio.get_running_loop().create_future()

    @property
    def addr(self) -> SocketAddr:
        """The address that it is bound to."""
        assert self._transport is not None
        return _socket_addr(self._transport.get_extra_info("sockname"))

    def send(self, data: bytes, addr: SocketAddr) -> None:
        """Send one datagram, or drop and count it where the system takes no more."""
        if self._full or self._transport is None or self._transport.is_closing():
            self._counters["send buffer full"] += 1
            return
        self._transport.sendto(data, addr)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        # Not every event loop's transport says so by its base classes.
        self._transport = cast(asyncio.DatagramTransport, transport)
        # asyncio keeps what the system does not take, without a bound; a stale answer helps nobody.
        if (set_limits := getattr(transport, "set_write_buffer_limits", None)) is not None:
            set_limits(high=0)

    def datagram_received(self, data: bytes, addr: tuple[str, int] | tuple[str, int, int, int]) -> None:
        """Of asyncio."""
        self._received(self, data, _socket_addr(addr))

    def pause_writing(self) -> None:
        """Of asyncio."""
        self._full = True

    def resume_writing(self) -> None:
        """Of asyncio."""
        self._full = False

    def error_received(self, exc: Exception) -> None:
        """Of asyncio: an ICMP error, which anybody can forge."""
        self._counters["socket error"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        if not self._closed.done():
            self._closed.set_result(None)

    async def aclose(self) -> None:
        """Close the socket; it is closed when this returns."""
        if self._transport is not None:
            self._transport.abort()
            await self._closed


def _socket_addr(addr: tuple[str, int] | tuple[str, int, int, int]) -> SocketAddr:
    return SocketAddr(addr[0], addr[1])


async def open_listeners(
    bind: Sequence[SocketAddr], received: Received, counters: Counter[str], *, purpose: str
) -> tuple[Listener, ...]:
    """A listener for each address; raises RelayServerError where one can't be bound, and leaves none open then."""
    loop = asyncio.get_running_loop()
    listeners: list[Listener] = []
    try:
        for addr in bind:
            listeners.append(await _open(loop, addr, received, counters))
    except OSError as exc:
        for listener in listeners:
            await listener.aclose()
        raise RelayServerError(
            f"can't serve {purpose} on UDP {addr}: {exc.strerror or exc}; choose another address or stop who has it"
        ) from exc
    return tuple(listeners)


async def _open(
    loop: asyncio.AbstractEventLoop, addr: SocketAddr, received: Received, counters: Counter[str]
) -> Listener:
    sock = socket.socket(addr.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if addr.family is socket.AF_INET6:
            # Otherwise IPv4 sources would show up as IPv4-mapped ones, and 0.0.0.0 beside :: could not be bound.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((addr.host, addr.port))
        _, listener = await loop.create_datagram_endpoint(lambda: Listener(received, counters), sock=sock)
    except BaseException:
        sock.close()
        raise
    return listener
