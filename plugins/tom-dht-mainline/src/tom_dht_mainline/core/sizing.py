"""How many nodes the DHT has, judged by how densely they lie around random targets."""

from __future__ import annotations

from collections import deque
from statistics import median

_SAMPLES = 32


class SizeEstimate:
    """Median over the last 32 lookups, so that a few targets crowded by an attacker don't move it."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_SAMPLES)

    def add(self, distances: list[int]) -> None:
        """Take the XOR distances of the closest nodes to one target, ascending."""
        if len(distances) >= 4 and distances[-1] > 0:
            # The k-th closest of n uniform ids lies at about k/n of the space; k-1 makes the estimate unbiased.
            self._samples.append((len(distances) - 1) * float(1 << 160) / distances[-1])

    def nodes(self) -> int:
        """The estimate, 0 if unknown."""
        return round(median(self._samples)) if self._samples else 0
