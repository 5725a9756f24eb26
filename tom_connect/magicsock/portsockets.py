"""Further sockets for port probing: many for seconds, and of those the one that a path leads through."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Final

from tom_connect.magicsock.sockopts import enlarge_buffers, ttl_switch
from tom_connect.magicsock.udp import BUFFER_SIZE, SockAddr, UdpSocket

SPARE: Final = 64
"""File descriptors below the process's limit that are left to the program."""


def descriptor_limit() -> float:
    """How many file descriptors the process may have; infinite where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return inf
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return inf if soft == resource.RLIM_INFINITY else soft


class PortSockets:
    """IPv4 sockets by number, bound to free ports of `host`.

    All but those that have received something are bare; `make(sock, via)` makes a whole `UdpSocket` of such a one.
    Where the event loop has no readers (Windows' proactor) none can be opened.
    """

    def __init__(
        self,
        host: str,
        *,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[socket.socket, int], UdpSocket],
        counters: Counter[str],
    ) -> None:
        self._host = host
        self._loop = loop
        self._make = make
        self._counters = counters
        self._bare: dict[int, socket.socket] = {}
        self._whole: dict[int, UdpSocket] = {}
        self._limit = descriptor_limit() - SPARE

    def __len__(self) -> int:
        return len(self._bare) + len(self._whole)

    def open(self, via: int) -> bool:
        """Open a socket under that number; False if there can't be more."""
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except OSError:
            self._counters["port probing: no more sockets"] += 1
            return False
        try:
            # The system gives the lowest free number.
            if sock.fileno() >= self._limit:
                raise OSError
            sock.setblocking(False)
            sock.bind((self._host, 0))
            self._loop.add_reader(sock.fileno(), self._readable, via)
        except (OSError, NotImplementedError):
            sock.close()
            self._counters["port probing: no more sockets"] += 1
            return False
        self._bare[via] = sock
        return True

    def close(self, via: int) -> None:
        """Close a socket; unknown numbers are ignored."""
        sock = self._bare.pop(via, None)
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        udp = self._whole.pop(via, None)
        if udp is not None:
            udp.close()

    def close_all(self) -> None:
        """Close every socket."""
        for via in [*self._bare, *self._whole]:
            self.close(via)

    def get(self, via: int) -> UdpSocket | None:
        """The whole socket with that number, made if it is bare; None if it is closed."""
        udp = self._whole.get(via)
        if udp is None and (sock := self._bare.pop(via, None)) is not None:
            self._loop.remove_reader(sock.fileno())
            enlarge_buffers(sock, BUFFER_SIZE)
            udp = self._whole[via] = self._make(sock, via)
            udp.start_reading(self._loop)
        return udp

    def send(self, via: int, data: bytes, dest: SockAddr, ttl: int | None = None) -> None:
        """Send one datagram. `ttl`: after how many hops it dies, None for the usual number. Never raises."""
        udp = self._whole.get(via)
        if udp is not None:
            udp.send_one(data, dest)
        elif (sock := self._bare.get(via)) is not None:
            switch = ttl_switch(sock) if ttl is not None else None
            if ttl is not None and (switch is None or not switch(ttl)):
                self._counters["send: no opener"] += 1
                return
            try:
                sock.sendto(data, dest)
            except OSError:
                self._counters["port probing: not sent"] += 1
            if switch is not None:
                switch(None)

    def _readable(self, via: int) -> None:
        # What has arrived is still with the kernel, for the whole socket to take.
        self.get(via)
