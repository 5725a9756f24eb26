"""Who counts as one source where connections or requests are limited."""

from __future__ import annotations

import ipaddress
from typing import Final

IPV6_PREFIX: Final = 56
"""Bits of an IPv6 address that count as one source: what a household is given."""


def source_prefix(host: str) -> str:
    """What limits go by: an IPv4 address, or the /56 of an IPv6 address; "" for what is neither."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, IPV6_PREFIX), strict=False))
    return str(ip)
