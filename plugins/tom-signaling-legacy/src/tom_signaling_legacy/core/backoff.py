"""When a server that could not be reached or went away is tried again."""

from __future__ import annotations

import random

import attrs

FIRST = 0.5
"""Seconds, about, before the first further attempt: a server that restarts is back within a few."""
LONGEST = 60.0
"""Seconds at most: a server that comes back is used within a minute."""
STABLE = 30.0
"""Seconds that a connection must have held for the next failure to count as the first: a server that lets us in and
throws us out at once is no better than one that is away."""


@attrs.define
class Backoff:
    """Doubling waits with jitter, so that all who lost a server do not come back at one moment."""

    rng: random.Random = attrs.Factory(random.Random)
    _failures: int = 0

    def lasted(self, seconds: float) -> None:
        """A connection has ended after so many seconds."""
        if seconds >= STABLE:
            self._failures = 0

    def next_wait(self) -> float:
        """Seconds before the next attempt, from half to the whole of what is due."""
        due = min(LONGEST, FIRST * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return due * self.rng.uniform(0.5, 1.0)
