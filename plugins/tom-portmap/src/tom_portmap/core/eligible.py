"""Which protocols there are, and which addresses a mapping is for; it imports little, since every start does."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

from tom_connect.addr import SocketAddr, is_local

Protocol = Literal["pcp", "nat-pmp", "upnp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("pcp", "nat-pmp", "upnp")
"""In the order in which they are asked: by how much one answer says."""
IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(ip: IP) -> bool:
    """Whether an external address is one at which the world can reach us: not another network's own, not none."""
    return not (ip.is_unspecified or ip.is_multicast or is_local(SocketAddr(str(ip), 1)))


def is_private(host: str) -> bool:
    """Whether an address of ours is one that a NAT may stand before; `host`: text of an IP address."""
    ip = SocketAddr(host, 0).ip
    return is_local(SocketAddr(host, 0)) and not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)


def can_be_mapped(bound: SocketAddr) -> bool:
    """Whether a socket bound there may be behind a gateway: to all addresses, a private one, or a global IPv6 one."""
    if bound.ip.is_unspecified or ":" in bound.host:
        return bound.ip.is_unspecified or not is_local(bound)
    return is_private(bound.host)
