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
UNTOLD: Final = 0.4
"""Seconds for which pings only open although nothing is known of the node: its invitation is mostly found by then."""
FILTERED: Final = 2.5
"""The same where the node says that its NAT filters: two polls."""


class Meeting:
    """The pings of one call. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.began = -inf
        self._next = inf
        self._opens_until = -inf

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
        self._opens_until = now + UNTOLD

    def end(self) -> None:
        """There is a path, or nobody wants one any more."""
        self._next = inf
        self._opens_until = -inf

    def learned(self, *, filtered: bool, now: float) -> None:
        """The node says whether its NAT filters."""
        if not self.on:
            return
        self._opens_until = self.began + FILTERED if filtered else now
        self._next = min(self._next, max(now, min(self._opens_until, self._next)))
        if not filtered:
            self._next = now

    def opening(self, now: float) -> bool:
        """Whether pings must not reach the other's router yet."""
        return now < self._opens_until

    def knocked(self, now: float) -> bool:
        """The node has let us in: whether that is news, so that its addresses are to be pinged at once."""
        news = self.on and now < self._opens_until
        self._opens_until = min(self._opens_until, now)
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
        if now < self._opens_until < self._next:
            self._next = self._opens_until
        return True
