"""Pings while a call of ours waits for a node that no path leads to yet: often, since nobody can say when it opens.

A node that finds a call lets the caller's address in and *knocks* there (`disco.KNOCK`). Until then our pings only open
our own NAT: see `puncher` for what a full ping may spoil at the other's router. A knock ends that, and so does whatever
says that the node may be reached unasked. If neither comes, pings travel in full after a while anyhow.
"""

from __future__ import annotations

from math import inf
from typing import Final

STEPS: Final = ((3.0, 0.5), (10.0, 1.0), (30.0, 2.0), (inf, 6.0))
"""Until how many seconds after the call its addresses are pinged anew, and every how many: a callee polls about once a
second, so most calls are found within three; each round has a second ping after 0.2 s."""
LASTS: Final = 90.0
"""Seconds after which a call that led nowhere is over; QUIC gives up before."""
UNTOLD: Final = 0.8
"""Seconds for which pings only open although the node says nothing of its NAT: that is mostly found by then."""
FILTERED: Final = 4.0
"""The same where it says that its NAT filters: three polls, one of which is lost."""


class Meeting:
    """The pings of one call. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.began = -inf
        self._next = inf
        self._opened_at = inf
        self._opens_for = UNTOLD

    @property
    def on(self) -> bool:
        """Whether a call of ours is out."""
        return self._next < inf

    @property
    def due(self) -> float:
        """When the addresses are to be pinged anew, or the opening is over."""
        return self._next

    def begin(self, now: float) -> None:
        """A call is being left."""
        self.began = now
        self._next = now

    def opened(self, now: float) -> None:
        """Addresses of the node are known, and our pings have gone there."""
        if self._opened_at == inf:
            self._opened_at = now
            self._next = min(self._next, now + self._opens_for)

    def end(self) -> None:
        """There is a path, or nobody wants one any more."""
        self._next = inf

    def learned(self, *, filtered: bool, now: float) -> None:
        """The node says whether its NAT filters."""
        if self.on and self._opens_for > 0.0:
            self._opens_for = FILTERED if filtered else 0.0
            if not filtered:
                self._next = now

    def opening(self, now: float) -> bool:
        """Whether pings must not reach the other's router yet."""
        return now < self._opened_at + self._opens_for and self._opens_for > 0.0

    def knocked(self, now: float) -> bool:
        """The node has let us in: whether that is news, so that its addresses are to be pinged at once."""
        news = self.on and self.opening(now)
        self._opens_for = 0.0
        return news

    def step(self, now: float) -> bool:
        """Whether the addresses are to be pinged now; sets the next time."""
        if now < self._next:
            return False
        if now - self.began >= LASTS:
            self.end()
            return False
        pause = next(pause for until, pause in STEPS if now - self.began < until)
        self._next = now + pause
        until = self._opened_at + self._opens_for
        if now < until < self._next:
            self._next = until
        return True
