"""Linux's own word that interfaces, addresses or routes changed: an AF_NETLINK socket (netlink(7), rtnetlink(7)).

It only wakes us: what the network is now is read anew, since messages get lost under load. A library for all of
rtnetlink, such as pyroute2, takes 0.3 s to import, which is more than many a command of ours takes in all.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

import attrs

READS: Final = 64
"""Messages that are read in one turn of the loop, so that a busy container host does not hold up others."""
_BUFFER: Final = 1 << 16
_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ROUTE: Final = struct.Struct("=BB")
_NEWLINK: Final = 16
_DELLINK: Final = 17
_ADDRESS: Final = (20, 21)
_ROUTES: Final = (24, 25)
_IFF_LOWER_UP: Final = 0x10000
_MAX_ROUTE_BITS: Final = 1
"""Some tunnels take over everything by two routes of one bit each."""
# RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


@attrs.frozen
class Heard:
    """What messages say. `links`: numbers of interfaces, and whether each has a link, in order."""

    changed: bool
    links: tuple[tuple[int, bool], ...] = ()


def open_netlink() -> socket.socket | None:
    """A non-blocking socket that hears of changes, or None where the system has none or forbids it."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return None
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
    except OSError:
        if sock is not None:
            sock.close()
        return None
    return sock


def read(sock: socket.socket) -> Heard:
    """Read what waits. Never raises: where the kernel had to drop messages, something has changed.

    Bounded; what is left over wakes the loop again.
    """
    changed, links = False, list[tuple[int, bool]]()
    for _ in range(READS):
        try:
            data, sender = sock.recvfrom(_BUFFER)
        except (BlockingIOError, InterruptedError):
            break
        except OSError:  # ENOBUFS: messages were dropped
            changed = True
            continue
        if sender[0] == 0:  # from the kernel, and not from another program
            heard = parse(data)
            changed |= heard.changed
            links += heard.links
    return Heard(changed, tuple(links))


def parse(data: bytes) -> Heard:
    """What a datagram of rtnetlink messages says; what is malformed says nothing."""
    changed, links = False, list[tuple[int, bool]]()
    at = 0
    with contextlib.suppress(struct.error):
        while at + _HEADER.size <= len(data):
            length, kind, *_rest = _HEADER.unpack_from(data, at)
            if length < _HEADER.size or at + length > len(data):
                break
            body = data[at + _HEADER.size : at + length]
            if kind in (_NEWLINK, _DELLINK):
                _family, _type, index, flags, _mask = _LINK.unpack_from(body)
                changed = True
                links.append((index, kind == _NEWLINK and bool(flags & _IFF_LOWER_UP)))
            elif kind in _ADDRESS or (kind in _ROUTES and _ROUTE.unpack_from(body)[1] <= _MAX_ROUTE_BITS):
                changed = True
            at += length + 3 & ~3
    return Heard(changed, tuple(links))
