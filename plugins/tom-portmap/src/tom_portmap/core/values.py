"""What the parts of the plugin tell each other: whom to ask, and what was answered."""

from __future__ import annotations

import attrs

from tom_connect.addr import SocketAddr
from tom_portmap.core.eligible import IP, Protocol


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
