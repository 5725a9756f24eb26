"""From which IP address a client comes: as its connection says, or a proxy that the operator vouches for. Sans-IO."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from tom_connect.addr import SocketAddr, is_local
from tom_relay.wire import IPAddress

FORWARDING_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")
"""By these a proxy says that it passes others on."""
MAX_HOPS = 32
"""Proxies in a row that are looked at."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def ip_of(text: str) -> IPAddress | None:
    """The IP address that a text is, IPv4-mapped ones as IPv4; None if it is none."""
    try:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def peer_ip(peername: object) -> IPAddress | None:
    """The IP address of a transport's `peername`; None if it has none."""
    return ip_of(str(peername[0])) if isinstance(peername, tuple) and peername else None


def host_of(peername: object) -> str:
    """What limits for each host go by: the IPv4 address, or the IPv6 /64 that one host may well own."""
    address = peer_ip(peername)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return "" if address is None else str(address)


def is_forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a proxy says that it passes the request on for somebody else."""
    return any(name in headers for name in FORWARDING_HEADERS)


def public_origin(
    peername: object, headers: Mapping[str, str], forwarded_for: Iterable[str], proxies: Sequence[Network]
) -> IPAddress | None:
    """The public address from which a client comes; None if that is not known for certain.

    `forwarded_for`: the values of its `X-Forwarded-For` headers, believed only if the connection comes from one of
    `proxies`: the last address that is not itself one of these. A header that somebody else sends hides the address,
    and so does a connection from a private network: there may be a proxy that says nothing.
    """
    address = peer_ip(peername)
    if address is None:
        return None
    if any(address in network for network in proxies):
        hops = [hop for value in forwarded_for for hop in value.split(",")]
        for hop in hops[: -MAX_HOPS - 1 : -1]:
            address = ip_of(hop)
            if address is None or not any(address in network for network in proxies):
                break
        else:
            return None
    elif is_forwarded(headers):
        return None
    if address is None or address.is_multicast or is_local(SocketAddr(str(address), 1)):
        return None
    return address
