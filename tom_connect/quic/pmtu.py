"""Search for the largest datagram that a path carries, after RFC 8899 and RFC 9000 section 14.3, without IO.

The owner asks `probe(now)` whenever it sends anyway, so an idle connection wakes for nothing. Probes are
acknowledged by any QUIC peer, and their loss says nothing about congestion. The first probe tries the ceiling,
which most paths carry; only where it is lost three times does a binary search follow.
"""

from __future__ import annotations

import math

import attrs

from tom_connect.quic.settings import BASE_MTU

MAX_PROBES = 3  # RFC 8899 section 5.1.2: one lost probe may be plain loss
SEARCH_STEP = 16  # bytes; a search that stops closer gains less than 1.5%
RETRY_DELAY = 0.25  # seconds before a lost probe is sent again, so that one burst of loss does not take all three
RAISE_DELAY = 600.0  # RFC 8899 section 5.1.1, PMTU_RAISE_TIMER: paths change
HOLE_DELAY = 30.0  # after a black hole; doubled each time up to RAISE_DELAY
HOLE_BURSTS = 3  # loss events of large packets, with no large packet acknowledged between, that make a black hole
DOUBT_TIMEOUTS = 2  # probe time-outs in a row after which smaller packets are tried
DOUBT_DELAY = 1.0  # seconds until the larger size is tried again after that: it may have been plain loss


@attrs.define
class PathMtu:
    """The state of the search on one path; sizes are bytes of UDP payload, times seconds.

    Attributes: `mtu`, what may be sent now; `black_holes`, how often larger packets had vanished.
    """

    ceiling: int
    mtu: int = BASE_MTU
    black_holes: int = 0
    _too_big: int = attrs.field(init=False, default=0)
    _in_flight: int | None = attrs.field(init=False, default=None)
    _tries: int = attrs.field(init=False, default=0)
    _next_at: float = attrs.field(init=False, default=0.0)
    _bursts: int = attrs.field(init=False, default=0)
    _burst_at: float = attrs.field(init=False, default=-math.inf)
    _hole_delay: float = attrs.field(init=False, default=HOLE_DELAY)

    def __attrs_post_init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._too_big = self.ceiling + 1
        self._in_flight = None
        self._tries = 0
        self._bursts = 0

    def limit(self, ceiling: int) -> None:
        """Lower the ceiling to what the peer says that it can receive (RFC 9000 section 18.2)."""
        if ceiling < self.ceiling:
            self.ceiling = max(ceiling, BASE_MTU)
            self.mtu = min(self.mtu, self.ceiling)
            self._restart()

    @property
    def searching(self) -> bool:
        """Whether a larger size is still to be tried."""
        return self._candidate() is not None

    def _candidate(self) -> int | None:
        if self.ceiling <= self.mtu:
            return None
        if self._too_big > self.ceiling:
            return self.ceiling
        if self._too_big - self.mtu <= SEARCH_STEP:
            return None
        return (self.mtu + self._too_big) // 2

    def probe(self, now: float) -> int | None:
        """The size of the probe to send now, or None. The caller must then report `acked` or `lost`."""
        if self._in_flight is not None or now < self._next_at or self.mtu >= self.ceiling:
            return None
        size = self._candidate()
        if size is None:  # the raise timer has run out
            self._restart()
            size = self._candidate()
        self._in_flight = size
        return size

    def acked(self, size: int, now: float) -> None:
        """A probe of `size` bytes has arrived."""
        if size != self._in_flight or size <= self.mtu:
            return
        self.mtu = size
        self._in_flight = None
        self._tries = 0
        self._bursts = 0
        self._next_at = now if self.searching else now + RAISE_DELAY

    def lost(self, size: int, now: float) -> None:
        """A probe of `size` bytes was lost."""
        if size != self._in_flight:
            return
        self._in_flight = None
        self._tries += 1
        if self._tries < MAX_PROBES:
            self._next_at = now + RETRY_DELAY
        else:
            self._refuse(size, now)

    def _refuse(self, size: int, now: float) -> None:
        self._too_big = size
        self._tries = 0
        self._next_at = now if self.searching else now + RAISE_DELAY

    def refused(self, size: int, now: float) -> None:
        """The socket itself would not send `size` bytes (EMSGSIZE): no path from here carries it."""
        if size <= self.mtu:
            self._fall(now)
        elif size < self._too_big:
            self._in_flight = None
            self._refuse(size, now)

    def large_acked(self) -> None:
        """A packet larger than the base size was acknowledged: the path still carries it."""
        self._bursts = 0

    def large_lost(self, sent_at: float, now: float) -> bool:
        """Packets larger than the base size, the newest sent at `sent_at`, are lost; True if the MTU fell."""
        if self.mtu <= BASE_MTU or sent_at <= self._burst_at:
            return False  # they were sent before the MTU fell, or belong to the loss event that was counted
        self._burst_at = now
        self._bursts += 1
        if self._bursts < HOLE_BURSTS:
            return False
        self._fall(now)
        return True

    def timed_out(self, in_a_row: int, now: float) -> bool:
        """The probe time-out fired for the `in_a_row`-th time with no acknowledgement; True if the MTU fell.

        Either large packets vanish, or all do, or a few were lost: smaller ones go on until a probe shows which.
        """
        if self.mtu > BASE_MTU and in_a_row >= DOUBT_TIMEOUTS:
            self.mtu = BASE_MTU
            self._restart()
            self._next_at = now + DOUBT_DELAY
            return True
        return False

    def _fall(self, now: float) -> None:
        self.mtu = BASE_MTU
        self.black_holes += 1
        self._restart()
        self._next_at = now + self._hole_delay
        self._hole_delay = min(self._hole_delay * 2, RAISE_DELAY)

    def path_changed(self, mtu: int, now: float) -> None:
        """The path is another one, on which `mtu` bytes are known to pass; search from there."""
        self.mtu = max(BASE_MTU, min(mtu, self.ceiling))
        self._restart()
        self._next_at = now
        self._hole_delay = HOLE_DELAY

    def path_restored(self, now: float) -> None:
        """The outage was of the whole path, so a fall during it proved nothing: search again at once."""
        if self.mtu < self.ceiling:
            self._restart()
            self._next_at = now
            self._hole_delay = HOLE_DELAY
