"""Under which topics a node looks for volunteers, one after the other; sans-IO."""

from __future__ import annotations

import random
from typing import Final

from tom_relay.volunteer.topics import MAX_LEVEL, ROOM, day_of, random_position, topic

MAX_TOPICS: Final = 8
"""Topics of one search: a look-up of the DHT costs some dozens of packets."""
FEW: Final = 8
"""Networks in a topic below which its level is too deep."""


class TopicWalk:
    """Gives topics; tell it how many networks each had. Begins at `level`, where volunteers were found last.

    Where a topic is full the next level is looked at as well, where it is nearly empty the one before, and then other
    topics of the level. Where nothing is found, our clock may be wrong: the days before and after are tried.
    """

    def __init__(self, rng: random.Random, wall: float, level: int) -> None:
        self.level = min(max(level, 0), MAX_LEVEL)
        self._rng = rng
        self._day = day_of(wall)
        self._days = [self._day - 1, self._day + 1]
        self._position = random_position(rng)
        self._seen: set[bytes] = set()
        self._total = 0
        self._next: bytes | None = topic(self._day, self.level, self._position)

    def next(self) -> bytes | None:
        """The topic to look at now, None if there is none any more."""
        if len(self._seen) >= MAX_TOPICS:
            return None
        if self._next is not None:
            self._seen.add(self._next)
        return self._next

    def found(self, networks: int) -> None:
        """The last topic had so many."""
        self._total += networks
        if networks >= ROOM and self.level < MAX_LEVEL:
            self.level += 1
        elif networks < FEW and self.level > 0:
            self.level -= 1
        candidate = topic(self._day, self.level, self._position)
        for _ in range(1 << min(self.level, 3)):
            if candidate not in self._seen:
                break
            candidate = topic(self._day, self.level, random_position(self._rng))
        if candidate in self._seen:
            candidate = self._another_day()
        self._next = None if candidate in self._seen else candidate

    def _another_day(self) -> bytes:
        if self._total or not self._days:
            return next(iter(self._seen))
        self._day = self._days.pop(0)
        return topic(self._day, self.level, self._position)
