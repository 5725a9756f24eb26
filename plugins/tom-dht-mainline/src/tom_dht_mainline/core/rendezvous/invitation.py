"""What a node publishes about being called: a salted BEP 44 item beside its address record."""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import Final

import attrs

from tom_dht_mainline.core.errors import ItemError

SALT: Final = b"tom-rv-1"
VERSION: Final = 1
_BODY: Final = struct.Struct("!BBHB20s32s16s")
SIZE: Final = _BODY.size
TICK: Final = 0.01
"""Seconds in which the pause between polls is counted."""
MAX_INTERVAL: Final = 600.0
_PORTS_DIFFER: Final = 0x04
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"


class Filtering(enum.IntEnum):
    """Whether a NAT that filters stands before a node: a packet that comes unasked may spoil what it opens next."""

    UNKNOWN = 0
    FILTERED = 1
    OPEN = 2


@attrs.frozen
class Invitation:
    """How to call a node.

    `mailbox`: the infohash under which it looks for calls; `interval`: seconds between its polls, each of another one
    of the `nodes` nearest to it; `key`: its X25519 key for calls; `ip`: where others see it, if it says so.
    `ports_differ`: whether its NAT gives each destination another port.
    """

    mailbox: bytes
    interval: float
    nodes: int
    key: bytes
    filtering: Filtering = Filtering.UNKNOWN
    ports_differ: bool = False
    ip: str | None = None

    def encode(self) -> bytes:
        """The value of the item, 73 bytes before bencoding."""
        flags = self.filtering | (_PORTS_DIFFER if self.ports_differ else 0)
        ticks = max(1, min(round(self.interval / TICK), 0xFFFF))
        return _BODY.pack(VERSION, flags, ticks, self.nodes, self.mailbox, self.key, _pack_ip(self.ip))


def decode_invitation(value: object) -> Invitation:
    """Read the value of an item; bytes after what is known are ignored. Raises ItemError."""
    if not isinstance(value, bytes) or len(value) < SIZE:
        raise ItemError(f"an invitation is a byte string of at least {SIZE} bytes")
    version, flags, ticks, nodes, mailbox, key, ip = _BODY.unpack_from(value)
    if version != VERSION:
        raise ItemError(f"an invitation of version {version}; {VERSION} is known")
    interval = ticks * TICK
    if not 0 < interval <= MAX_INTERVAL or not nodes:
        raise ItemError("an invitation without polls")
    filtering = flags & 0x03
    return Invitation(
        mailbox=mailbox,
        interval=interval,
        nodes=nodes,
        key=key,
        filtering=Filtering(filtering) if filtering in (0, 1, 2) else Filtering.UNKNOWN,
        ports_differ=bool(flags & _PORTS_DIFFER),
        ip=_unpack_ip(ip),
    )


def _pack_ip(ip: str | None) -> bytes:
    if ip is None:
        return bytes(16)
    packed = ipaddress.ip_address(ip).packed
    return _V4_MAPPED + packed if len(packed) == 4 else packed


def _unpack_ip(raw: bytes) -> str | None:
    if raw == bytes(16):
        return None
    if raw.startswith(_V4_MAPPED):
        return str(ipaddress.IPv4Address(raw[12:]))
    return str(ipaddress.IPv6Address(raw))
