"""Rates for each source: a token bucket for each prefix, in a bounded table."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PREFIXES = 65_536
"""Prefixes of which the rate is known: about 16 MiB. The least recently seen is forgotten."""


def client_host(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> str:
    """Who a request is from: the last address in `X-Forwarded-For` that no trusted proxy has, else the peer."""
    hosts = [peer]
    if trusted and forwarded_for is not None:
        hosts = [*(part.strip() for part in forwarded_for[-512:].split(",")), peer]
    for host in reversed(hosts):
        try:
            ip = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return peer
        if not any(ip in network for network in trusted if network.version == ip.version):
            return host
    return peer


class RateLimit:
    """`rate` requests a second from each prefix, `burst` at once; a rate of 0 is no limit."""

    def __init__(self, rate: float, burst: float, limit: int = MAX_PREFIXES) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, prefix: str, now: float) -> float:
        """Count a request; 0 if it may pass, else the seconds after which one may (the request does not count then)."""
        if not self._rate:
            return 0.0
        level, at = self._levels.get(prefix, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - at) * self._rate)
        wait = 0.0
        if level >= 1.0:
            level -= 1.0
        else:
            wait = (1.0 - level) / self._rate
        self._levels[prefix] = (level, now)
        self._levels.move_to_end(prefix)
        if len(self._levels) > self._limit:
            self._levels.popitem(last=False)
        return wait
