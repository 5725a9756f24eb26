"""Plain UDP sockets in the hosts of a lab: what arrives, and from where it seems to come."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator

from tom_connect.testing.natlab import Host

Address = tuple[str, int]
OpenSocket = Callable[..., socket.socket]

PATIENCE = 20.0


def opener() -> Iterator[OpenSocket]:
    """Opens UDP sockets in hosts, and closes them at the end."""
    opened: list[socket.socket] = []

    def open_one(host: Host, port: int = 0, *, version: int = 4) -> socket.socket:
        made = host.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
        opened.append(made)
        made.bind((host.addr if version == 4 else host.addr6, port))
        made.settimeout(PATIENCE)
        return made

    yield open_one
    for each in opened:
        each.close()


def tell(sender: socket.socket, receiver: socket.socket) -> Address:
    """Send a datagram that must arrive; returns the address from which it does."""
    token = secrets.token_bytes(8)
    sender.sendto(token, receiver.getsockname())
    while True:
        data, source = receiver.recvfrom(100)
        if data == token:
            return (source[0], source[1])


def come_before(receiver: socket.socket, last: bytes) -> set[bytes]:
    """What arrives up to a datagram that was sent after all others."""
    found = set()
    while (data := receiver.recv(100)) != last:
        found.add(data)
    return found
