"""What is known of one path, and which of several is best."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Final

import attrs

from tom_connect.abc import PathInfo
from tom_connect.addr import SocketAddr
from tom_connect.holepunch.path import Path, RelayPath

HYSTERESIS: Final = 0.005
"""Seconds by which a path must be faster to replace a good one: a switch costs a new congestion window."""
IPV6_AHEAD: Final = 0.003
"""Seconds that an IPv6 path may be slower and still win: it has no NAT mapping that could go."""
FIRST_SAMPLE: Final = 1.0
"""Seconds that a path is given to get two RTT samples before a faster one replaces it: the first sample is often taken
while a handshake keeps the event loop busy."""
RTT_SAMPLES: Final = 3
"""RTT is the least of this many samples: a busy event loop adds to single ones, never takes away."""


@attrs.define(eq=False)
class PathState:
    """One path to one node. Times are seconds of the caller's clock, None where it never happened."""

    path: Path
    source: str
    given: bool
    """The caller named it: QUIC may use it before it has answered."""
    added: float
    direct: bool = attrs.field(init=False)
    ipv6: bool = attrs.field(init=False)
    proven: bool = False
    proven_at: float | None = None
    ever_proven: bool = False
    next_ping: float = inf
    attempts: int = 0
    """Pings of the present probing, for its back-off."""
    unanswered: int = 0
    """Pings sent since the last sign of life."""
    lifetime_pings: int = 0
    last_ping: float | None = None
    last_pong: float | None = None
    heard: float | None = None
    first_heard: float | None = None
    """When QUIC first heard from it since it was last left or added; None before."""
    credit: int | None = None
    """Bytes that may still be sent to an address that only forwarded authentic packets (RFC 9000 section 8.2)."""
    cookie: bytes | None = None
    cookie_until: float = 0.0
    mtu: int = 1200
    rtt: float | None = None
    _samples: deque[float] = attrs.field(factory=lambda: deque(maxlen=RTT_SAMPLES))

    def __attrs_post_init__(self) -> None:
        self.direct = not isinstance(self.path, RelayPath)
        self.ipv6 = isinstance(self.path, SocketAddr) and ":" in self.path.host

    def measured(self, rtt: float) -> None:
        """Take an RTT sample, seconds."""
        self._samples.append(rtt)
        self.rtt = min(self._samples)

    def sampled(self) -> bool:
        """Whether the RTT rests on more than one sample."""
        return len(self._samples) > 1

    def forget_rtt(self) -> None:
        """The route may be another now: earlier samples say nothing."""
        self._samples.clear()
        self.rtt = None

    def score(self) -> float:
        """Less is better; only paths of one tier compare."""
        if self.rtt is None:
            return inf
        return self.rtt - (IPV6_AHEAD if self.ipv6 else 0.0)

    def info(self, now: float, *, active: bool) -> PathInfo:
        """The path as applications see it."""
        addr = self.path.url if isinstance(self.path, RelayPath) else self.path
        kind = "direct" if self.direct else "relay"
        heard = None if self.heard is None else max(0.0, now - self.heard)
        return PathInfo(addr=addr, kind=kind, rtt=self.rtt, active=active, last_heard=heard, mtu=self.mtu)


def best(current: PathState | None, paths: Iterable[PathState], now: float) -> tuple[PathState | None, str]:
    """The proven path to use, and why it is not the current one.

    Direct before relay, then the least biased RTT. A current path that is proven stays unless another is of a better
    tier, or faster by more than the hysteresis.
    """
    proven = [state for state in paths if state.proven]
    if not proven:
        return None, "no path answers"
    winner = min(proven, key=lambda state: (not state.direct, state.score(), state.added))
    if current is None:
        return winner, "first proven"
    if not current.proven:
        return winner, "the path in use no longer answers"
    if winner.direct != current.direct:
        return winner, "direct"
    if not current.sampled() and now - (current.proven_at or current.added) < FIRST_SAMPLE:
        return current, ""
    if winner.score() + HYSTERESIS < current.score():
        return winner, "faster"
    return current, ""
