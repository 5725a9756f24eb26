"""How many nodes the DHT has, judged by how densely they lie around random targets."""

from __future__ import annotations

from collections import OrderedDict
from statistics import median_low
from typing import Final

_SAMPLES = 32
CROWDING: Final = 3
"""Nodes this many times nearer to a target than they should be are a crowd: by chance in 1 target of 100."""
CROWD_SIZE: Final = 4
"""Times the nodes in question that a DHT must have for a crowd to be told from it."""


class SizeEstimate:
    """Median over the last 32 targets, so that a few targets crowded by an attacker don't move it."""

    def __init__(self) -> None:
        self._samples: OrderedDict[bytes, float] = OrderedDict()

    def add(self, target: bytes, distances: list[int]) -> None:
        """Take the XOR distances of the closest nodes to one target, ascending; the last of a target counts."""
        if len(distances) >= 4 and distances[-1] > 0:
            # The k-th closest of n uniform ids lies at about k/n of the space; k-1 makes the estimate unbiased.
            self._samples.pop(target, None)
            self._samples[target] = (len(distances) - 1) * float(1 << 160) / distances[-1]
            if len(self._samples) > _SAMPLES:
                self._samples.popitem(last=False)

    def nodes(self, *, besides: bytes | None = None) -> int:
        """The estimate, 0 if unknown; `besides` says which target is not to count, since it is in question."""
        samples = [sample for target, sample in self._samples.items() if target != besides]
        return round(median_low(samples)) if samples else 0

    def is_crowded(self, target: bytes, width: int, farthest: int) -> bool:
        """Whether more than `width` nodes lie so near to a target that somebody must have put some there.

        `farthest`: XOR distance of the last of those that are known.
        """
        size = self.nodes(besides=target)
        return size > CROWD_SIZE * width and farthest * size * CROWDING < width << 160
