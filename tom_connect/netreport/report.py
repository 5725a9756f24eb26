"""What is known about our network at one moment, as a value."""

from __future__ import annotations

import enum
import ipaddress
from typing import Literal

import attrs

from tom_connect.addr import RelayUrl, SocketAddr

Version = Literal[4, 6]
"""An IP version."""


class Mapping(enum.StrEnum):
    """How a NAT maps our socket (RFC 4787 section 4.1)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """One address for all destinations; also where there is no NAT."""
    ENDPOINT_DEPENDENT = "endpoint-dependent"
    """Another address for each destination: what a server sees is of no use to a peer."""
    UNKNOWN = "unknown"


class Filtering(enum.StrEnum):
    """From whom a NAT or firewall lets datagrams in (RFC 4787 section 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """From everyone, as soon as the socket has sent something."""
    ADDRESS_DEPENDENT = "address-dependent"
    """From every port of an IP address that was sent to, at least: one server can't tell it from the one above."""
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    """Only from where something was sent to."""
    UNKNOWN = "unknown"


@attrs.frozen
class FamilyReport:
    """What is known about one IP version.

    `local`: our socket's addresses on this machine, loopback left out; `reflexive`: at which addresses others see it,
    the best attested first; `confirmed`: those of them that may be published, none where witnesses contradict one
    another. `answers`: whether a server answered over UDP, None where none was asked or the answer is still out.
    `shifting`: the IP address at which others see us where no two of them saw the same port.
    `nat`, `port_preserved`, `hairpin`: None as long as they are not known. `carrier_nat`: whether an address of ours,
    or the one that our router has outside, shows another NAT behind the router's own.
    """

    version: Version
    local: tuple[SocketAddr, ...] = ()
    reflexive: tuple[SocketAddr, ...] = ()
    confirmed: tuple[SocketAddr, ...] = ()
    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    nat: bool | None = None
    port_preserved: bool | None = None
    hairpin: bool | None = None
    answers: bool | None = None
    carrier_nat: bool = False
    shifting: str | None = None

    @property
    def public_ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address at which most others see us, None if it is not known."""
        if self.reflexive:
            return self.reflexive[0].ip
        return ipaddress.ip_address(self.shifting) if self.shifting is not None else None

    @property
    def endpoint_dependent(self) -> bool:
        """Whether the NAT is known to give each destination another port (a "symmetric" or hard NAT)."""
        return self.mapping is Mapping.ENDPOINT_DEPENDENT


@attrs.frozen
class RelayReport:
    """One relay of ours. `rtt`: seconds over its connection, `udp_rtt`: over UDP; None before they are known."""

    url: RelayUrl
    connected: bool
    home: bool = False
    rtt: float | None = None
    udp_rtt: float | None = None
    problem: str | None = None


@attrs.frozen
class NetReport:
    """What is known about our network.

    `complete`: whether every server has answered or been given up since the endpoint was bound or its network changed;
    until then the report tells what is known so far. `udp_blocked`: True where relays are connected over TCP and no
    server that is known to serve UDP answers, None where there is nothing to tell it by. `captive_portal`: True where
    something else answers in a relay's place; it is looked for only where something is wrong.
    """

    ipv4: FamilyReport = FamilyReport(4)
    ipv6: FamilyReport = FamilyReport(6)
    relays: tuple[RelayReport, ...] = ()
    udp_blocked: bool | None = None
    captive_portal: bool | None = None
    complete: bool = False

    @property
    def reflexive(self) -> tuple[SocketAddr, ...]:
        """At which addresses others see us, of both IP versions."""
        return self.ipv4.reflexive + self.ipv6.reflexive

    @property
    def confirmed(self) -> tuple[SocketAddr, ...]:
        """Those of them that may be published."""
        return self.ipv4.confirmed + self.ipv6.confirmed

    def family(self, version: int) -> FamilyReport:
        """The part about IP version 4 or 6."""
        return self.ipv4 if version == 4 else self.ipv6


__all__ = ["FamilyReport", "Filtering", "Mapping", "NetReport", "RelayReport", "Version"]
