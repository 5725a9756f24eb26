"""Hears what gateways tell everyone after a restart: PCP's and NAT-PMP's multicast announcements."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from tom_portmap.errors import WireError
from tom_portmap.wire import natpmp, pcp

GROUP: Final = "224.0.0.1"
PORT: Final = 5350
"""Where clients listen (RFC 6887 section 14.1.3, RFC 6886 section 3.2.1)."""


class Announcements(asyncio.DatagramProtocol):
    """Listens from `listen` on until it is left: `announced(source)`, with the IP address that it came from.

    Where the port can't be had, nothing is heard, and the looks at the gateway find a restart later.
    """

    def __init__(self, announced: Callable[[str], None], malformed: Counter[str]) -> None:
        self._announced = announced
        self._malformed = malformed
        self._joined: set[str] = set()
        self._socket: socket.socket | None = None
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        with contextlib.suppress(OSError):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.setblocking(False)
                # Other programs of this machine listen too.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if hasattr(socket, "SO_REUSEPORT"):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(("", PORT))
                self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
                self._socket = sock
            except BaseException:
                sock.close()
                raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._transport is not None:
            self._transport.abort()

    def listen(self, local: set[str]) -> None:
        """Hear what comes to these IPv4 addresses of ours; others are left."""
        if self._socket is None:
            return
        for host in self._joined - local:
            with contextlib.suppress(OSError):  # the interface may be gone
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, _membership(host))
        for host in local:
            # Joined again where it was joined already: the interface may have been gone meanwhile.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _membership(host))
        self._joined = set(local)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Of asyncio."""
        try:
            if data[:1] == bytes((pcp.VERSION,)):
                announcement = pcp.Response.decode(data).opcode == pcp.ANNOUNCE
            else:
                announcement = natpmp.Response.decode(data).opcode == natpmp.EXTERNAL_ADDRESS
        except WireError as exc:
            self._malformed[exc.kind] += 1
            return
        if announcement:
            self._announced(addr[0])


def _membership(host: str) -> bytes:
    return socket.inet_aton(GROUP) + socket.inet_aton(host)
