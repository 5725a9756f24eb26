"""How each discovery source has done lately: what it usually takes, and whether it is worth asking; sans-IO."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection
from math import inf
from typing import Final

import attrs

SAMPLES: Final = 32
"""Latencies from which the usual one is taken: the last few minutes of a busy node."""
USUAL: Final = 0.9
"""The share of answers that come within the usual latency."""
MARGIN: Final = 1.2
"""Times the usual latency that a hedge waits: an answer that is just a little late is still waited for."""
SHORTEST_HEDGE: Final = 0.05
"""Seconds that a hedge waits at least, so that one slow packet is not answered by another query."""
LONGEST_HEDGE: Final = 2.0
"""Times its own stage that a hedge waits at most: where earlier sources are slow, a later one is wanted soon."""
AHEAD: Final = 1.1
"""Times its own latency that earlier sources must take for one not to wait for them: with less between them, whoever
needs none of the later sources troubles none, and is a tenth late at most."""
BREAK_AFTER: Final = 4
"""Failures in a row after which a source is left out for a while."""
BREAK_FOR: Final = (10.0, 300.0)
"""Seconds for which it is left out at first, doubled with each failed trial, and at most."""


@attrs.define
class SourceCounts:
    """Look-ups by what came of them. `first`: this source's answer was the first one that was found."""

    asked: int = 0
    found: int = 0
    first: int = 0
    nothing: int = 0
    failed: int = 0

    def add(self, other: SourceCounts) -> None:
        """Count another's look-ups too."""
        for field in attrs.fields(SourceCounts):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@attrs.define(eq=False)
class SourceHealth:
    """One source. Times are seconds of the caller's clock."""

    counts: SourceCounts = attrs.Factory(SourceCounts)
    _latencies: deque[float] = attrs.field(factory=lambda: deque(maxlen=SAMPLES))
    _failures: int = 0
    _closed_until: float = -inf
    _pause: float = BREAK_FOR[0]
    silent: bool = False
    """Whether it had no answer in the last look-up although it had its time: nobody waits for it."""
    outdated: bool = False
    """Whether another one told last that a node had moved on from where this one has it: nobody waits for it either."""

    @property
    def usual(self) -> float | None:
        """Seconds within which it usually has its first answer; None before it ever had one."""
        if not self._latencies:
            return None
        ordered = sorted(self._latencies)
        return ordered[min(len(ordered) - 1, int(USUAL * len(ordered)))]

    @property
    def typical(self) -> float | None:
        """Seconds within which it has its first answer half of the time; None before it ever had one."""
        return statistics.median(self._latencies) if self._latencies else None

    @property
    def failures(self) -> int:
        """Failures since it last did its work."""
        return self._failures

    def left_out_for(self, now: float) -> float:
        """Seconds for which it is still left out after repeated failures; 0 if it may be asked."""
        return max(0.0, self._closed_until - now)

    def ask(self, now: float) -> None:
        """A look-up begins to ask it. Where it had been left out this is the one trial until its outcome is known."""
        self.counts.asked += 1
        if self._failures >= BREAK_AFTER:
            self._closed_until = now + self._pause

    def answered(self, seconds: float, *, first: bool) -> None:
        """Its first answer in a look-up came after `seconds`."""
        self.counts.found += 1
        self.counts.first += first
        self._latencies.append(seconds)
        self.forgive()

    def had_nothing(self) -> None:
        """It was asked, and knew nothing."""
        self.counts.nothing += 1
        self.forgive()

    def outrun(self, seconds: float) -> None:
        """A look-up was over by others' answers when this one had been asked for `seconds` and had said nothing."""
        self.silent = seconds > max(MARGIN * (self.usual or 0.0), SHORTEST_HEDGE)

    def failed(self, now: float) -> None:
        """It could not be asked."""
        self.counts.failed += 1
        self._failures += 1
        if self._failures == BREAK_AFTER:
            self._pause = BREAK_FOR[0]
            self._closed_until = now + self._pause
        elif self._failures > BREAK_AFTER:
            self._pause = min(2 * self._pause, BREAK_FOR[1])
            self._closed_until = now + self._pause

    def forgive(self) -> None:
        """It works, or may work now since the network is another one."""
        self._failures = 0
        self._closed_until = -inf
        self.silent = False


def hedge(stage: float, own: SourceHealth, earlier: Collection[SourceHealth], *, fixed: bool) -> float:
    """Seconds after the start at which a source is asked while earlier ones are at work.

    A little more than the quickest of those usually takes; 0 where it is quicker itself. `fixed`: neither, but `stage`.
    """
    if fixed or stage <= 0:
        return stage
    quickest = min((each.typical for each in earlier if each.typical is not None), default=inf)
    if own.typical is not None and own.typical * AHEAD < quickest:
        return 0.0
    usual = min((each.usual for each in earlier if each.usual is not None), default=None)
    return stage if usual is None else min(max(MARGIN * usual, SHORTEST_HEDGE), LONGEST_HEDGE * stage)
