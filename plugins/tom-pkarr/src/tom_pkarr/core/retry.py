"""When a relay may be asked again: short waits with jitter, and what the relay itself asks for."""

from __future__ import annotations

import random

import attrs

FIRST = 0.2
"""Seconds, about, before a failed request is repeated: a lost connection can mostly be had again at once."""
ATTEMPTS = 3
"""Requests for one answer at most."""
MAX_PAUSE = 300.0
"""Seconds at most for which a relay can keep us away: one that says a year is broken or hostile."""


@attrs.define
class Standing:
    """How we stand with one relay. Times are monotonic seconds."""

    rng: random.Random = attrs.Factory(random.Random)
    paused_until: float = 0.0
    problem: str | None = None
    """Why the last request failed, None if it did not."""

    def pause(self, now: float) -> float:
        """Seconds for which the relay wants no request from us."""
        return max(0.0, self.paused_until - now)

    def worked(self) -> None:
        """A request was answered."""
        self.problem = None

    def failed(self, reason: str, retry_after: float | None, now: float) -> None:
        """A request failed; `retry_after`: seconds for which the relay asked us to stay away."""
        self.problem = reason
        if retry_after is not None:
            self.paused_until = max(self.paused_until, now + min(retry_after, MAX_PAUSE))

    def next_wait(self, attempt: int, now: float) -> float | None:
        """Seconds before attempt number `attempt` (the first is 0), None if there should be none."""
        if attempt >= ATTEMPTS:
            return None
        backoff = 0.0 if attempt == 0 else FIRST * (1 << attempt) * self.rng.uniform(0.5, 1.0)
        pause = self.pause(now)
        # Whoever was sent away comes back a little later than asked, and not all at once.
        return max(backoff, pause * self.rng.uniform(1.0, 1.1)) if pause else backoff
