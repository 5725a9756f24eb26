"""Addresses as `(ip, port)` tuples, their compact forms (BEP 5, BEP 32) and their prefixes."""

from __future__ import annotations

import enum
import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache

Address = tuple[str, int]
"""An IP address in canonical text (no brackets, no scope) and a UDP port 1..65535, the same shape for both families."""


class Family(enum.Enum):
    """One of the two DHTs (BEP 32)."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def compact_size(self) -> int:
        """Bytes of a compact address: 6 or 18."""
        return 6 if self is Family.IPV4 else 18


def family_of(ip: str) -> Family:
    """The DHT that an IP address belongs to."""
    return Family.IPV6 if ":" in ip else Family.IPV4


def pack_ip(ip: str) -> bytes:
    """4 or 16 bytes of an IP address in text; raises `OSError` if it is none."""
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)


def pack_address(addr: Address) -> bytes:
    """Compact form of an address: 4+2 or 16+2 bytes (BEP 5, BEP 32)."""
    return pack_ip(addr[0]) + addr[1].to_bytes(2, "big")


def unpack_address(data: bytes) -> Address | None:
    """The address in 6 or 18 compact bytes, or None for another length."""
    if len(data) == 6:
        return socket.inet_ntoa(data[:4]), (data[4] << 8) | data[5]
    if len(data) == 18:
        return socket.inet_ntop(socket.AF_INET6, data[:16]), (data[16] << 8) | data[17]
    return None


def host_key(ip: str) -> bytes:
    """What counts as one host: the IPv4 address or the IPv6 /64."""
    return pack_ip(ip)[:8]


def prefix_key(ip: str) -> bytes:
    """What counts as one network: the IPv4 /24 or the IPv6 /48."""
    packed = pack_ip(ip)
    return packed[:3] if len(packed) == 4 else packed[:6]


class Networks:
    """A set of IP networks with a cached membership test."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(net) for net in networks)
        self._test = lru_cache(maxsize=4096)(self._contains)

    def __contains__(self, ip: str) -> bool:
        return self._test(ip)

    def _contains(self, ip: str) -> bool:
        try:
            parsed = ipaddress.ip_address(ip)
        except ValueError:
            return False
        return any(parsed in net for net in self._networks)


LOCAL = Networks(
    (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "::1/128",
        "fe80::/10",
        "fc00::/7",
    )
)
"""Networks exempt from BEP 42."""


def is_usable(addr: Address) -> bool:
    """Whether a datagram may be sent to an address that a stranger named: no port 0, unspecified or multicast."""
    ip, port = addr
    if port == 0:
        return False
    if ":" in ip:
        return not ip.startswith(("ff", "::ffff:")) and ip != "::"
    first = int(ip[: ip.index(".")])
    return 0 < first < 224
