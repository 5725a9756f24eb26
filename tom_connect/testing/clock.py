"""Time that stands still until a test turns it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, Final

MAX_STEPS: Final = 5_000_000
"""Actions in one `run` after which something is taken to go round in circles."""


class Timer:
    """Calls `action()` once at the time that was set last. Made by `VirtualClock.timer`."""

    __slots__ = ("_action", "_clock", "_generation", "when")

    def __init__(self, clock: VirtualClock, action: Callable[[], None]) -> None:
        self.when: float | None = None
        """When it will go off, None if it is not set."""
        self._clock = clock
        self._action = action
        self._generation = 0

    def set(self, when: float | None) -> None:
        """Go off at `when` instead, or not at all. A time that is past means now."""
        if when == self.when:
            return
        self.when = when
        self._generation += 1
        if when is not None:
            self._clock.at(when, self._fire, self._generation)

    def _fire(self, generation: int) -> None:
        if generation == self._generation and self.when is not None:
            self.when = None
            self._action()


class VirtualClock:
    """A clock (`tom_connect.abc.Clock`) with a queue of actions; hours without any cost nothing.

    Actions of one moment happen in the order in which they were asked for.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        """Seconds."""
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """The present, seconds."""
        return self.now

    def wall(self) -> float:
        """The present as seconds since 1970, in November 2023."""
        return 1_700_000_000.0 + self.now

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        """Call `action(*args)` at `when`, or at once in the next `run` if that is past."""
        heapq.heappush(self._queue, (when, next(self._order), action, args))

    def timer(self, action: Callable[[], None]) -> Timer:
        """A timer that can be set, moved and cleared."""
        return Timer(self, action)

    def run(self, until: float) -> None:
        """Let time pass. Raises RuntimeError when there is no end of things to do."""
        queue, pop = self._queue, heapq.heappop
        for _ in range(MAX_STEPS):
            if not queue or queue[0][0] > until:
                self.now = max(self.now, until)
                return
            when, _order, action, args = pop(queue)
            if when > self.now:
                self.now = when
            action(*args)
        raise RuntimeError(f"{MAX_STEPS} actions and no end, at {self.now} s")

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.run(self.now + seconds)
