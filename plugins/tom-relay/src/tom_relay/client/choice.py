"""Which of several relays is the home relay, at which others reach us; sans-IO."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from tom_connect.addr import RelayUrl

STICKY = 1.5
"""Times that another relay must be nearer to replace the home relay: a change has to be published and found."""
STICKY_SECONDS = 0.010
"""And by so many seconds: below that the difference is noise."""
PATIENCE = 1.0
"""Seconds that a home relay which is not connected any more is kept: a restart takes about that long."""
SAME = 0.010
"""Seconds of latency within which two relays are equally near, and their score decides."""


@attrs.frozen
class Candidate:
    """A relay to choose from.

    `rtt`: seconds, None before it is known; `connected`: since when, seconds of the caller's clock, None if it is not;
    `lost_at`: when a connection was lost, None if none was. `score` and `role`: as its map says.
    """

    url: RelayUrl
    kind: str = "configured"
    connected: float | None = None
    lost_at: float | None = None
    rtt: float | None = None
    score: float = 0.0
    role: str = "relay"

    def rank(self, nearest: float) -> tuple[bool, bool, int, float, float]:
        """Less is better: own relays before public ones, proven relays before peers, then near, then a high score."""
        rtt = math.inf if self.rtt is None else self.rtt
        ring = 0 if rtt <= nearest + SAME else 1
        return self.kind == "public", self.role != "relay", ring, -self.score if ring == 0 else rtt, rtt


def ordered(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that are connected, the best first."""
    connected = [candidate for candidate in candidates if candidate.connected is not None]
    near = {
        key: min((c.rtt for c in connected if (c.kind, c.role) == key and c.rtt is not None), default=math.inf)
        for key in {(c.kind, c.role) for c in connected}
    }
    return sorted(connected, key=lambda c: c.rank(near[c.kind, c.role]))


def choose_home(current: RelayUrl | None, candidates: Sequence[Candidate], now: float) -> RelayUrl | None:
    """The home relay from now on; `current` stays unless another is clearly better or it has been gone too long."""
    best = next(iter(ordered(candidates)), None)
    present = next((candidate for candidate in candidates if candidate.url == current), None)
    if present is None:
        return best.url if best is not None else None
    if present.connected is None:
        if present.lost_at is not None and now - present.lost_at < PATIENCE:
            return current
        return best.url if best is not None else None
    if best is None or best.url == current:
        return current
    if (best.kind, best.role) != (present.kind, present.role):
        return best.url
    if best.rtt is None or present.rtt is None:
        return current
    nearer = best.rtt * STICKY < present.rtt and best.rtt + STICKY_SECONDS < present.rtt
    worthier = best.score > present.score * STICKY and best.rtt <= present.rtt + SAME
    return best.url if nearer or worthier else current
