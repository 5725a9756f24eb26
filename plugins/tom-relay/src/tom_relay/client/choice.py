"""Which of several relays is the home relay, at which others reach us; sans-IO."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from tom_connect.addr import RelayUrl
from tom_relay.client.standing import UNKNOWN, Standing

KINDS = ("configured", "public", "volunteer")
"""The kinds of relays at which we may be reachable, the best first."""
STICKY = 1.5
"""Times that another relay must be nearer to replace the home relay: a change has to be published and found."""
STICKY_SECONDS = 0.010
"""And by so many seconds: below that the difference is noise."""
PATIENCE = 1.0
"""Seconds that a home relay which is not connected any more is kept: a restart takes about that long."""
SAME = 0.010
"""Seconds of distance within which two relays are equally near, and their score decides."""
WORTH = 1.0
"""Points by which a score must be higher as well to move the home relay: two that have just begun differ by less."""
DETOUR = 0.050
"""Seconds that one may be farther away which has proven to be a relay: a peer may soon be gone."""


@attrs.frozen
class Candidate:
    """A relay to choose from.

    `rtt`: seconds, None before it is known; `connected`: since when, seconds of the caller's clock, None if it is not;
    `lost_at`: when a connection was lost, None if none was. `standing`: as it says itself, or its map.
    """

    url: RelayUrl
    kind: str = "configured"
    connected: float | None = None
    lost_at: float | None = None
    rtt: float | None = None
    standing: Standing = UNKNOWN

    @property
    def distance(self) -> float:
        """Seconds to the relay and back, and more for one that is a peer; infinite before it is known."""
        if self.rtt is None:
            return math.inf
        return self.rtt + (0.0 if self.standing.role == "relay" else DETOUR)

    def rank(self, nearest: float) -> tuple[int, int, float, float]:
        """Less is better: own relays before public ones and those of volunteers, then near, then a high score."""
        distance = self.distance
        ring = 0 if distance <= nearest + SAME else 1
        return KINDS.index(self.kind), ring, -self.standing.score if ring == 0 else distance, distance


def ordered(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that are connected, the best first."""
    connected = [candidate for candidate in candidates if candidate.connected is not None]
    near = {kind: min(c.distance for c in connected if c.kind == kind) for kind in {c.kind for c in connected}}
    return sorted(connected, key=lambda c: c.rank(near[c.kind]))


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
    if best.kind != present.kind:
        return best.url
    if best.rtt is None or present.rtt is None:
        return current
    # As far as what both have in common: two peers are compared by the way to them alone.
    common = min(best.distance - best.rtt, present.distance - present.rtt)
    there, here = best.distance - common, present.distance - common
    nearer = there * STICKY < here and there + STICKY_SECONDS < here
    score, enough = best.standing.score, max(present.standing.score * STICKY, present.standing.score + WORTH)
    worthier = score > enough and there <= here + SAME
    return best.url if nearer or worthier else current
