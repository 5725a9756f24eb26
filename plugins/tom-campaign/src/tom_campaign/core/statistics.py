"""Figures of many measurements: percentiles, loss, intervals of confidence, and the windows of endurance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs

Verdict = Literal["PASS", "WARN", "FAIL"]
WARN_BELOW: Final = 5.0
"""Percent of loss from which a verdict is FAIL."""
MAX_SAMPLES: Final = 200
"""Round trips that a record keeps, spread over their order; all of fewer."""
Z_95: Final = 1.959963984540054
"""Two-sided 95% of the normal distribution."""


@attrs.frozen
class RttStatistics:
    """Milliseconds; all None without a sample."""

    min_ms: float | None = None
    avg_ms: float | None = None
    max_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that at least this share (0 to 1) of the samples does not exceed (nearest rank).

    `ordered`: at least one, ascending.
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rtt_statistics(samples_ms: Iterable[float]) -> RttStatistics:
    """The figures of round trips in milliseconds."""
    ordered = sorted(samples_ms)
    if not ordered:
        return RttStatistics()
    return RttStatistics(
        min_ms=_rounded(ordered[0]),
        avg_ms=_rounded(math.fsum(ordered) / len(ordered)),
        max_ms=_rounded(ordered[-1]),
        p50_ms=_rounded(percentile(ordered, 0.5)),
        p95_ms=_rounded(percentile(ordered, 0.95)),
        p99_ms=_rounded(percentile(ordered, 0.99)),
    )


def kept_samples(samples_ms: Iterable[float], limit: int = MAX_SAMPLES) -> tuple[float, ...]:
    """The samples in ascending order; of more than `limit`, so many of them that stand for all, ends included."""
    ordered = sorted(samples_ms)
    if len(ordered) > limit:
        last = len(ordered) - 1
        ordered = [ordered[round(position * last / (limit - 1))] for position in range(limit)]
    return tuple(map(_rounded, ordered))


def loss_pct(sent: int, received: int) -> float:
    """Percent of what was sent that did not come; 100 where nothing could be sent at all."""
    if sent <= 0:
        return 100.0
    return round(100.0 * (sent - received) / sent, 4)


def verdict(sent: int, received: int) -> Verdict:
    """PASS with no loss, WARN under 5%, FAIL else; FAIL where nothing was sent."""
    if sent > 0 and received >= sent:
        return "PASS"
    # Of whole numbers, not of the rounded percentage: 5% itself is FAIL.
    return "WARN" if sent > 0 and (sent - received) * 100 < WARN_BELOW * sent else "FAIL"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some verdicts; PASS of none."""
    found = set(verdicts)
    return "FAIL" if "FAIL" in found else "WARN" if "WARN" in found else "PASS"


def success_interval(successes: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Between which shares (0 to 1) the true success rate is, with 95% confidence: Wilson's score interval.

    Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference", JASA 22, p. 209. Of no
    attempts nothing is known: (0, 1).
    """
    if total <= 0:
        return 0.0, 1.0
    share = successes / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    # Where all or none succeed the bound is exact, whatever floating point makes of it.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == total else min(1.0, centre + half)
    return low, high


def _rounded(value: float) -> float:
    return round(value, 3)


@attrs.define
class Window:
    """What came of the messages of one stretch of time."""

    sent: int = 0
    received: int = 0
    rtts_ms: list[float] = attrs.Factory(list)

    def add(self, rtt_ms: float | None) -> None:
        """Count a message; None: it was lost."""
        self.sent += 1
        if rtt_ms is not None:
            self.received += 1
            self.rtts_ms.append(rtt_ms)


@attrs.define
class Rolling:
    """The messages of an endurance phase, cut into windows of `every` seconds from `began` on.

    A message belongs to the window in which it was answered or given up.
    """

    every: float
    began: float
    total_sent: int = 0
    total_received: int = 0
    _window: Window = attrs.Factory(Window)
    _number: int = 0

    def add(self, rtt_ms: float | None) -> None:
        """Count a message; None: it was lost."""
        self.total_sent += 1
        self.total_received += rtt_ms is not None
        self._window.add(rtt_ms)

    @property
    def due(self) -> float:
        """When the window ends, in seconds of the caller's clock."""
        return self.began + (self._number + 1) * self.every

    def take(self, now: float) -> Window | None:
        """The window if it is over, and begin the next; None before."""
        if now < self.due:
            return None
        # After a long standstill one window tells of all of it.
        self._number = max(self._number + 1, math.floor((now - self.began) / self.every))
        window, self._window = self._window, Window()
        return window
