"""The UDP sockets of a magic socket: one of each family, those opened for port probing, and new ones for dead ones."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import LocalError
from tom_connect.holepunch.path import ViaSocket
from tom_connect.magicsock.portsockets import PortSockets
from tom_connect.magicsock.rebinding import Rebinding
from tom_connect.magicsock.udp import BatchReceiver, UdpSocket, bind_error, open_socket, sockaddr

_NO_FAMILY: Final = frozenset(
    getattr(errno, name, -1) for name in ("EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EPFNOSUPPORT")
)
_ANY_OR_SELF: Final = frozenset({"::", "::1", "0.0.0.0", "127.0.0.1"})  # noqa: S104 - names to compare with


class FamilySockets:
    """At most one socket for IPv4 and one for IPv6. What they receive goes to `receive`; see `UdpSocket`.

    `rebound(udp)` is called when one has been opened anew.
    """

    def __init__(
        self,
        *,
        receive: BatchReceiver,
        turn_end: Callable[[float], None],
        writable: Callable[[], None],
        rebound: Callable[[UdpSocket], None],
        clock: Callable[[], float],
        counters: Counter[str],
        logger: logging.Logger,
    ) -> None:
        self.further: PortSockets | None = None
        """Those for port probing; None before `bind`, after `aclose`, and without IPv4."""
        self.rebinding = Rebinding(rebound=rebound, counters=counters, logger=logger)
        self._receive = receive
        self._turn_end = turn_end
        self._writable = writable
        self._clock = clock
        self._counters = counters
        self._logger = logger
        self._by_family: dict[int, UdpSocket] = {}

    def __bool__(self) -> bool:
        return bool(self._by_family)

    @property
    def all(self) -> tuple[UdpSocket, ...]:
        """The sockets of the families."""
        return tuple(self._by_family.values())

    @property
    def local_addrs(self) -> tuple[SocketAddr, ...]:
        """Where they are bound, with real ports; hosts may be wildcards."""
        return tuple(udp.local for udp in self._by_family.values())

    @property
    def limits_ttl(self) -> bool:
        """Whether one can let a datagram die after few hops."""
        return any(udp.limits_ttl for udp in self._by_family.values())

    async def bind(self, addrs: Sequence[SocketAddr], loop: asyncio.AbstractEventLoop) -> None:
        """Open a socket at each address; see `MagicSocket.bind`."""
        missing: list[str] = []
        try:
            for addr in addrs:
                if addr.family in self._by_family:
                    raise LocalError(f"two addresses of one family to bind to: {addr} is the second; give one each")
                udp = self._open(addr)
                if udp is None:
                    missing.append(str(addr))
                    continue
                self._by_family[addr.family] = udp
                await udp.start(loop)
                if udp.family == socket.AF_INET:
                    self.further = PortSockets(
                        udp.local.host, loop=loop, make=self._whole_socket, counters=self._counters
                    )
        except BaseException:
            self._close()
            raise
        if not self._by_family:
            what = f"this machine has no network for {', '.join(missing)}" if missing else "no address to bind to"
            raise LocalError(f"{what}; give an IPv4 or IPv6 address that it has, such as 0.0.0.0:0")

    def _open(self, addr: SocketAddr) -> UdpSocket | None:
        try:
            sock = open_socket(addr)
        except OverflowError:
            raise LocalError(f"can't bind UDP {addr}: a port is 0 to 65535") from None
        except OSError as exc:
            absent = exc.errno == errno.EADDRNOTAVAIL and addr.host in _ANY_OR_SELF
            if exc.errno in _NO_FAMILY or absent:
                family = "IPv6" if addr.family == socket.AF_INET6 else "IPv4"
                self._logger.info("no %s on this machine: going on without %s", family, addr)
                return None
            raise bind_error(addr, exc) from exc
        return self._udp_socket(sock, self._receive, self.rebinding.request)

    def _udp_socket(
        self, sock: socket.socket, receive: BatchReceiver, broken: Callable[[UdpSocket], None]
    ) -> UdpSocket:
        return UdpSocket(
            sock,
            receive=receive,
            turn_end=self._turn_end,
            writable=self._writable,
            clock=self._clock,
            counters=self._counters,
            broken=broken,
        )

    def _whole_socket(self, sock: socket.socket, via: int) -> UdpSocket:
        def receive(source: SocketAddr, datagrams: list[bytes], now: float) -> None:
            self._receive(ViaSocket.of(source, via), datagrams, now)

        # If it breaks, its path is lost as if the network had failed.
        return self._udp_socket(sock, receive, lambda _udp: None)

    async def aclose(self) -> None:
        """Close them all, and try no more to open any."""
        await self.rebinding.aclose()
        self._close()

    def _close(self) -> None:
        for udp in self._by_family.values():
            udp.close()
        self._by_family.clear()
        if self.further is not None:
            self.further.close_all()
            self.further = None

    def rebind(self, hosts: Collection[str]) -> None:
        """Open those anew that the network has made useless; see `MagicSocket.rebind`.

        macOS and iOS take sockets away when they sleep or change networks, without a word where nothing is received, so
        there all are opened anew.
        """
        for udp in self._by_family.values():
            ip = udp.local.ip
            # Loopback and link-local addresses need not be on any list to be there.
            gone = not (ip.is_unspecified or ip.is_loopback or ip.is_link_local) and str(ip) not in hosts
            if gone or sys.platform in ("darwin", "ios"):
                self.rebinding.request(udp)

    # --- sending ----------------------------------------------------------------------------------------------

    def route(self, path: SocketAddr) -> tuple[UdpSocket, Any] | None:
        """The socket that a path leads through, and the address as the system wants it; None if there is none."""
        if isinstance(path, ViaSocket):
            udp = self.further.get(path.via) if self.further is not None else None
        else:
            udp = self._by_family.get(path.family)
        if udp is None or not 0 < path.port < 65536:
            return None
        try:
            return udp, sockaddr(path)
        except OSError:
            return None

    def send_via(self, data: bytes, path: ViaSocket, ttl: int | None = None) -> None:
        """Send one datagram through a further socket. `ttl`: after how many hops it dies, None for the usual number."""
        if self.further is not None:
            self.further.send(path.via, data, sockaddr(path), ttl)

    def send_opener(self, data: bytes, path: SocketAddr, ttl: int) -> None:
        """Send one datagram that dies after `ttl` hops."""
        if isinstance(path, ViaSocket):
            self.send_via(data, path, ttl)
        elif (route := self.route(path)) is not None:
            route[0].send_opener(data, route[1], ttl)
