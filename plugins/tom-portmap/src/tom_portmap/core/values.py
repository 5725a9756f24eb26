"""What the parts of the plugin tell each other: whom to ask, and what was answered."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

import attrs

from tom_connect.addr import SocketAddr, is_local

Protocol = Literal["pcp", "nat-pmp", "upnp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("pcp", "nat-pmp", "upnp")
"""In the order in which they are asked: by how much one answer says."""
IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Candidate:
    """One way to ask for a mapping: a protocol, the gateway, and the address of ours that faces it.

    Both are texts of IP addresses; that of an IPv6 gateway may have a scope id.
    """

    protocol: Protocol
    gateway: str
    local: str

    def __str__(self) -> str:
        return f"{self.gateway} by {self.protocol}"


@attrs.frozen
class Probed:
    """What a gateway that was probed said of itself.

    `external`: its external address, None where the protocol does not tell it; `epoch`: seconds since it lost its
    mappings, None likewise; `gone`: whether it said that the mapping that we hold is not there any more.
    """

    external: IP | None = None
    epoch: int | None = None
    gone: bool = False


@attrs.frozen
class Grant:
    """A mapping as the gateway granted it. `lifetime` in seconds, None for one without an end; `epoch` as in Probed."""

    external: SocketAddr
    lifetime: float | None
    epoch: int | None = None


def is_public(ip: IP) -> bool:
    """Whether an external address is one at which the world can reach us: not another network's own, not none."""
    return not (ip.is_unspecified or ip.is_multicast or is_local(SocketAddr(str(ip), 1)))
