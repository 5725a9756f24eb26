"""What one source of datagrams may ask for, when sources are many and may be forged."""

from __future__ import annotations

import ipaddress

_IPV6_NETWORK = 8  # bytes of a /64, the smallest network that one host has to itself


def source_key(host: str) -> bytes:
    """What stands for a source: the IPv4 address, or the first 64 bits of the IPv6 address."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped.packed
        return ip.packed[:_IPV6_NETWORK]
    return ip.packed


class SourceRates:
    """Allows each source `burst` at once and `rate` a second; `limit` sources are remembered.

    The one that asked least lately is forgotten first, and begins anew when it comes again.
    """

    __slots__ = ("_burst", "_full_at", "_interval", "_limit")

    def __init__(self, rate: float, burst: float, limit: int) -> None:
        self._interval = 1 / rate
        self._burst = burst * self._interval
        self._limit = limit
        # When the source's allowance is whole again; in the order of last use.
        self._full_at: dict[bytes, float] = {}

    def take(self, key: bytes, now: float) -> bool:
        """Take one from the allowance of `key`; False where it is used up. `now`: seconds."""
        full_at = self._full_at.pop(key, now)
        after = max(full_at, now) + self._interval
        allowed = after - now <= self._burst + 1e-9
        self._full_at[key] = after if allowed else full_at
        if len(self._full_at) > self._limit:
            del self._full_at[next(iter(self._full_at))]
        return allowed

    def __len__(self) -> int:
        return len(self._full_at)
