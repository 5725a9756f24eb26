"""The addresses of this machine's network interfaces."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tom_connect.addr import SocketAddr

MAX_ADDRESSES = 32
"""Addresses of one machine that are considered; container hosts have hundreds."""


def interface_hosts() -> list[str]:
    """Every unicast IP address of this machine, IPv4 first, link-local IPv6 left out, at most 32.

    Link-local ones mean nothing without an interface number, which differs from machine to machine.
    """
    import ifaddr  # binds system libraries when imported, which not every program needs

    hosts: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                continue
            if address.is_unspecified or address.is_multicast or (address.version == 6 and address.is_link_local):
                continue
            hosts.append(str(address))
    unique = list(dict.fromkeys(hosts))
    unique.sort(key=lambda host: ":" in host)
    return unique[:MAX_ADDRESSES]


def expand_wildcards(bound: Sequence[SocketAddr], hosts: Sequence[str]) -> list[SocketAddr]:
    """The addresses at which sockets bound to `bound` can be reached on this machine.

    A wildcard stands for each of `hosts` of its family, with the socket's port.
    """
    found: list[SocketAddr] = []
    for addr in bound:
        if addr.ip.is_unspecified:
            found += [SocketAddr(host, addr.port) for host in hosts if (":" in host) == (":" in addr.host)]
        else:
            found.append(addr)
    return list(dict.fromkeys(found))
