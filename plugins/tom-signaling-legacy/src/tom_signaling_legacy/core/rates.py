"""A token bucket, and one for each source in a bounded table."""

from __future__ import annotations

from collections import OrderedDict

import attrs

MAX_SOURCES = 16_384
"""Sources of which the rate is known; the least recently seen is forgotten."""


@attrs.define
class Bucket:
    """`rate` a second, `burst` at once; a rate of 0 is no limit. Times are seconds that only grow."""

    rate: float
    burst: float
    _level: float = attrs.field(init=False)
    _at: float | None = None

    def __attrs_post_init__(self) -> None:
        self._level = self.burst

    def spend(self, now: float) -> float:
        """Count one in any case; seconds for which its sender is to pause."""
        if not self.rate:
            return 0.0
        self._fill(now)
        self._level -= 1.0
        return max(0.0, -self._level / self.rate)

    def take(self, now: float) -> bool:
        """Count one if there is room for it; whether there was."""
        if not self.rate:
            return True
        self._fill(now)
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now


class SourceRates:
    """A bucket for each source."""

    def __init__(self, rate: float, burst: float, limit: int = MAX_SOURCES) -> None:
        self._rate = rate
        self._burst = burst
        self._limit = limit
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: str, now: float) -> bool:
        """Count one from a source if there is room for it; whether there was."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self._rate, self._burst)
            if len(self._buckets) > self._limit:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.take(now)
