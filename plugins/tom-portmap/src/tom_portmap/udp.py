"""Carries an exchange of PCP or NAT-PMP over a UDP socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TypeVar, cast

from tom_connect.abc import Clock
from tom_connect.addr import SocketAddr
from tom_portmap.core.exchange import Exchange
from tom_portmap.errors import SilentError

T = TypeVar("T")


async def ask(exchange: Exchange[T], local: str, clock: Clock) -> T:
    """Ask from the address `local`; raises SilentError or RefusedError.

    The socket is connected: the system gives it only what comes from the server's address and port.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    try:
        sock = connected_socket(exchange.server, local)
    except OSError as exc:
        raise SilentError(f"can't be asked from {local}: {exc.strerror or exc}") from None
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: _Asking(exchange, changed), sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        request: bytes | None = exchange.start(clock.monotonic())
        while not exchange.done:
            if request is not None:
                transport.sendto(request)
            timer = exchange.get_timer()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if timer is None else max(0.0, timer - clock.monotonic())):
                    await changed.wait()
            changed.clear()
            request = exchange.handle_timer(clock.monotonic())
    finally:
        transport.abort()
    if exchange.result is None:
        assert exchange.error is not None
        raise exchange.error
    return exchange.result


class _Asking(asyncio.DatagramProtocol):
    def __init__(self, exchange: Exchange[T], changed: asyncio.Event) -> None:
        self._exchange = exchange
        self._changed = changed

    def datagram_received(self, data: bytes, addr: tuple[str, int] | tuple[str, int, int, int]) -> None:
        server = self._exchange.server
        # Of a link-local server, one side may lack the scope id; the socket is bound to that interface anyway.
        same = addr[0].partition("%")[0] == server.host.partition("%")[0] and addr[1] == server.port
        self._exchange.receive(data, server if same else SocketAddr(addr[0], addr[1]))
        if self._exchange.done:
            self._changed.set()

    def error_received(self, exc: Exception) -> None:
        # A gateway that is rebooting may be unreachable for a moment; only "port unreachable" says something of it.
        if isinstance(exc, ConnectionRefusedError):
            self._exchange.unreachable()
            self._changed.set()


def connected_socket(server: SocketAddr, local: str = "") -> socket.socket:
    """A UDP socket to one server, from our address `local` or the one that the system chooses; raises OSError."""
    sock = socket.socket(server.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if local:
            sock.bind((local, 0))
        # Numeric: it resolves nothing, and finds the number of the interface in a scope id.
        found = socket.getaddrinfo(*server, server.family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
        sock.connect(found[0][4])
    except BaseException:
        sock.close()
        raise
    return sock


def facing(gateway: str) -> str | None:
    """The address of ours from which packets go to a gateway; None where none does. No packet is sent."""
    with contextlib.suppress(OSError), connected_socket(SocketAddr(gateway, 9)) as sock:
        return str(cast("tuple[str, int]", sock.getsockname())[0])
    return None
