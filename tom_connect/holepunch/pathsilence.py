"""How long a peer has been silent while it owes an answer, and what is made of that: doubt, then an outage."""

from __future__ import annotations

from math import inf

import attrs

from tom_connect.holepunch import pathrules as rules
from tom_connect.holepunch.pathstate import PathState


@attrs.define(eq=False)
class Silence:
    """The silence on the path in use; times in seconds, None for what is not so."""

    unanswered: float | None = None
    """Since when QUIC waits for an acknowledgment."""
    doubted: float | None = None
    """Since when the path in use is doubted."""
    needs_pong: bool = False
    """Whether the doubt is of our packets getting there, so that hearing the peer does not end it."""
    outage: float | None = None
    """Since when no path answers."""
    searched: float = -inf
    """When all paths were last asked in an outage."""
    patience: int = 1
    """Grows while pings are answered and QUIC's packets are not: then it is not the path that is silent."""
    at_ease_until: float = -inf
    """Until when traffic of the peer on a worse path raises no doubt."""

    def ended(self) -> float:
        """There is none any more; returns when it began, inf if there was none."""
        times = (self.outage, self.unanswered, self.doubted)
        self.doubted = self.outage = self.unanswered = None
        self.needs_pong = False
        return min((time for time in times if time is not None), default=inf)

    def forgive(self, seconds: float, now: float) -> None:
        """We stood still for so long ourselves."""
        if self.unanswered is not None:
            self.unanswered = min(self.unanswered + seconds, now)
        if self.doubted is not None:
            self.doubted = min(self.doubted + seconds, now)

    def ease(self, now: float) -> None:
        """Be at ease for as long as patience has grown to: the peer may have its own reasons for that path."""
        self.at_ease_until = now + self.patience * rules.AT_EASE

    def settle(self, now: float) -> None:
        """Be at ease after a doubt or a switch, since packets are still on their way."""
        self.at_ease_until = max(self.at_ease_until, now + rules.AT_EASE)

    def next_verdict(self, active: PathState, now: float) -> float:
        """When the path in use is to be looked at again: to be doubted, left, or found without a stand-in."""
        if self.doubted is None:
            if self.unanswered is None:
                return inf
            times: tuple[float, ...] = (self.unanswered + self.patience * rules.doubt_after(active),)
        else:
            times = (self.doubted + rules.leave_after(active), self.doubted + rules.outage_after(active))
        return min((time for time in times if time > now), default=inf)
