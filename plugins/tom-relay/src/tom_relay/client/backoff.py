"""How long to wait before a relay is tried again; sans-IO."""

from __future__ import annotations

import random

FIRST = 0.1
"""Seconds, about, before the first new attempt: most lost connections can be had again at once."""
LAST_WANTED = 2.0
"""Seconds at most while somebody waits for the relay: a restarted one is found again within 5 s."""
LAST = 30.0
"""Seconds at most otherwise."""


class Backoff:
    """Doubling waits with jitter, so that clients which a relay lost together do not come back together."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._failures = 0

    def reset(self) -> None:
        """An attempt has worked."""
        self._failures = 0

    def next(self, *, wanted: bool) -> float:
        """Seconds to wait after one more failure."""
        wait = FIRST * (1 << min(self._failures, 16))
        self._failures += 1
        return min(wait, LAST_WANTED if wanted else LAST) * self._rng.uniform(0.5, 1.0)
