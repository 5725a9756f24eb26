"""Under which topics a node looks for volunteers, one after the other; sans-IO."""

from __future__ import annotations

import random
from collections import deque
from typing import Final

from tom_relay.volunteer.topics import MAX_LEVEL, Crowd, day_of, random_position, topic

MAX_TOPICS: Final = 10
"""Topics of one search: a look-up of the DHT costs some dozens of packets."""
FEW: Final = 8
"""Networks in a topic below which its level is too deep."""
OTHERS: Final = 3
"""Further topics of a level."""


class TopicWalk:
    """Gives topics; tell it what each had. Begins at `level`, where volunteers were found last.

    From a topic that is full it goes one level deeper, from one that is nearly empty one up. Where it comes to rest it
    looks one level deeper as well, since volunteers are at two levels, and then at other topics of the level. Where
    nothing is found at all our clock may be wrong: the days before and after are tried.
    """

    def __init__(self, rng: random.Random, wall: float, level: int) -> None:
        self.level = min(max(level, 0), MAX_LEVEL)
        self._rng = rng
        self._day = day_of(wall)
        self._days = [self._day - 1, self._day + 1]
        self._position = random_position(rng)
        self._seen: set[bytes] = set()
        self._found_any = False
        self._way = 0  # 1 while it goes deeper, -1 while it goes up
        self._resting = False
        self._waiting: deque[bytes] = deque([topic(self._day, self.level, self._position)])

    def next(self) -> bytes | None:
        """The topic to look at now, None if there is none any more."""
        while len(self._seen) < MAX_TOPICS:
            if not self._waiting:
                if self._found_any or not self._days:
                    return None
                self._waiting.append(topic(self._days.pop(0), 0, self._position))
            where = self._waiting.popleft()
            if where not in self._seen:
                self._seen.add(where)
                return where
        return None

    def found(self, crowd: Crowd) -> None:
        """The last topic had so many."""
        self._found_any = self._found_any or crowd.networks > 0
        if not self._resting:
            if crowd.full and self.level < MAX_LEVEL and self._way >= 0:
                self._go(1)
            elif crowd.networks < FEW and self.level > 0 and self._way <= 0:
                self._go(-1)
            else:
                self._rest()

    def _go(self, way: int) -> None:
        self._way = way
        self.level += way
        self._waiting.append(topic(self._day, self.level, self._position))

    def _rest(self) -> None:
        self._resting = True
        deeper = min(self.level + 1, MAX_LEVEL)
        self._waiting.append(topic(self._day, deeper, self._position))
        for level in (deeper, *(self.level for _ in range(OTHERS - 1))):
            self._waiting.append(topic(self._day, level, random_position(self._rng)))
