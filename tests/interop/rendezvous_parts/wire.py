"""A UDP socket on which a packet can be given a TTL of its own."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from .disco import Addr

_FULL = 64


class Wire:
    """One IPv4 socket; each packet that comes goes to `on_packet` with this wire, the bytes and the sender."""

    def __init__(self, host: str, port: int, on_packet: Callable[["Wire", bytes, Addr], None]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind((host, port))
        self.port: int = self._socket.getsockname()[1]
        self._on_packet = on_packet
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def send(self, packet: bytes, addr: Addr, ttl: int = _FULL) -> None:
        """Send at once; what the system can't take now is lost, as UDP may."""
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        with contextlib.suppress(OSError):
            self._socket.sendto(packet, addr)

    def close(self) -> None:
        """Give the socket back."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(64):
            try:
                packet, addr = self._socket.recvfrom(2048)
            except OSError:
                return
            self._on_packet(self, packet, (str(addr[0]), int(addr[1])))
