"""Token buckets: bytes per second with a burst."""

from __future__ import annotations

import attrs


@attrs.define
class TokenBucket:
    """`rate`: bytes a second, 0 for no limit; `burst`: bytes that may come at once. A debt is paid by waiting."""

    rate: float
    burst: float
    _level: float = attrs.field(init=False)
    _at: float = 0.0

    def __attrs_post_init__(self) -> None:
        self._level = self.burst

    def take(self, size: int, now: float) -> float:
        """Take `size` bytes; returns the seconds to wait before more is taken, 0 while the burst lasts."""
        if not self.rate:
            return 0.0
        level = min(self.burst, self._level + (now - self._at) * self.rate) if now > self._at else self._level
        self._at = max(self._at, now)
        self._level = level = level - size
        return -level / self.rate if level < 0 else 0.0
