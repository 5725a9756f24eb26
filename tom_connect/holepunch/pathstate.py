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
LOSS_PINGS: Final = 32
"""Pings by which the loss of a path is judged."""
LOSS_PATIENCE: Final = 1.0
"""Seconds after which a ping without a pong is lost, at least; three RTT on slow paths."""
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
    bytes_sent: int = 0
    """Of QUIC's datagrams; `bytes_received`, those that were authentic."""
    bytes_received: int = 0
    why: str = "no answer yet"
    """Why it is what it is now, for those who look."""
    _samples: deque[float] = attrs.field(factory=lambda: deque(maxlen=RTT_SAMPLES))
    _pings: deque[list[float]] = attrs.field(factory=lambda: deque(maxlen=LOSS_PINGS))
    """The last pings: when each was sent, and after how long it was answered, inf if not yet."""

    def __attrs_post_init__(self) -> None:
        self.direct = not isinstance(self.path, RelayPath)
        self.ipv6 = isinstance(self.path, SocketAddr) and ":" in self.path.host

    def pinged(self, now: float) -> None:
        """A ping went out."""
        self.last_ping = now
        self._pings.append([now, inf])

    def answered(self, rtt: float, now: float) -> None:
        """A pong came, `rtt` seconds after what it answers, which need not be a ping."""
        self.measured(rtt)
        for ping in reversed(self._pings):
            if abs(ping[0] - (now - rtt)) < 1e-6:
                ping[1] = rtt
                break

    def measured(self, rtt: float) -> None:
        """Take an RTT sample, seconds."""
        self._samples.append(rtt)
        self.rtt = min(self._samples)

    def loss(self, now: float) -> float | None:
        """The share of the last pings that got no pong; None before one could be told."""
        patience = max(LOSS_PATIENCE, 3 * (self.rtt or 0.0))
        answers = [answer for at, answer in self._pings if answer < inf or now - at >= patience]
        return sum(answer == inf for answer in answers) / len(answers) if answers else None

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
        return PathInfo(
            addr=addr,
            kind=kind,
            rtt=self.rtt,
            active=active,
            last_heard=heard,
            mtu=self.mtu,
            proven=self.proven,
            loss=self.loss(now),
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            source=self.source,
            why=self.why,
        )


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
