"""One heap of timers for everything that a node waits for."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Timer:
    """A call due at `when`; cancel it by `cancel()`."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[float], None]) -> None:
        self.when = when
        self.callback: Callable[[float], None] | None = callback

    def cancel(self) -> None:
        """Never call back; harmless when it has fired."""
        self.callback = None


class TimerQueue:
    """Timers in order of time, equal times in order of creation."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def at(self, when: float, callback: Callable[[float], None]) -> Timer:
        """Call `callback(now)` once, from `run`, when `when` has come."""
        timer = Timer(when, callback)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def next(self) -> float | None:
        """When the earliest timer is due, None if there is none."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Call what is due; timers that these calls add wait for the next `run`, so this ends."""
        due: list[Timer] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            due.append(heapq.heappop(heap)[2])
        for timer in due:
            callback = timer.callback
            if callback is not None:
                timer.callback = None
                callback(now)
