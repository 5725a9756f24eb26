"""Rate limits of the serving side: queries by host, queries in all, and reply bytes by network."""

from __future__ import annotations

from .address import Networks, host_key, prefix_key
from .config import DhtConfig
from .counters import Counters

_MAX_TRACKED = 8192


class _Buckets:
    """Token buckets by key; when too many are tracked, the full ones, which say nothing, are forgotten."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._levels: dict[bytes, tuple[float, float]] = {}

    def take(self, key: bytes, amount: float, now: float) -> bool:
        level, since = self._levels.get(key, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        if level < amount:
            self._levels[key] = (level, now)
            return False
        if len(self._levels) >= _MAX_TRACKED and key not in self._levels:
            self._prune(now)
        self._levels[key] = (level - amount, now)
        return True

    def _prune(self, now: float) -> None:
        rate, burst = self._rate, self._burst
        self._levels = {key: entry for key, entry in self._levels.items() if entry[0] + (now - entry[1]) * rate < burst}
        while len(self._levels) >= _MAX_TRACKED:
            # A flood from that many sources: the oldest entries go, the limit on all queries still holds.
            for key in list(self._levels)[: _MAX_TRACKED // 4]:
                del self._levels[key]


class Limits:
    """Decides, before anything is decoded, whether a query is looked at, and after, whether its reply is sent."""

    def __init__(self, config: DhtConfig, counters: Counters, trusted: Networks) -> None:
        self._counters = counters
        self._trusted = trusted
        self._hosts = _Buckets(config.queries_per_ip, config.query_burst_per_ip)
        self._all = _Buckets(config.queries_total, config.queries_total)
        self._replies = _Buckets(config.reply_bytes_per_prefix, config.reply_burst_per_prefix)

    def admit_query(self, ip: str, now: float) -> bool:
        """Whether a query from this address is looked at; counted if not."""
        if ip not in self._trusted and not self._hosts.take(host_key(ip), 1.0, now):
            self._counters.dropped["rate-ip"] += 1
            return False
        if not self._all.take(b"", 1.0, now):
            self._counters.dropped["rate-total"] += 1
            return False
        return True

    def admit_reply(self, ip: str, size: int, now: float) -> bool:
        """Whether a reply of `size` bytes may go to this address; counted if not."""
        if ip not in self._trusted and not self._replies.take(prefix_key(ip), size, now):
            self._counters.dropped["reply-budget"] += 1
            return False
        return True
