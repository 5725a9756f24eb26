"""How many nodes the DHT has, judged by how densely they lie around random targets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from statistics import median_low
from typing import Final

from .targets import region

_SAMPLES = 32
CROWDING: Final = 3
"""Nodes this many times nearer to a target than they should be are a crowd: by chance in 1 target of 100."""
CROWD_SIZE: Final = 2
"""Times the nodes in question that a DHT must have for a crowd to be told from it."""
FEWEST: Final = 4
"""Nodes that tell how many there are."""
CLUMP: Final = 32
"""`FEWEST` of the nearest within this part of their distance were put there: by chance in 1 look-up of 100."""


def size_of(distances: Sequence[int]) -> int:
    """How many nodes a DHT has by the XOR distances of the nearest to some target, ascending; 0 if they don't tell.

    They don't if they are few, or if a crowd around another target is among them.
    """
    if len(distances) < FEWEST or not distances[-1]:
        return 0
    clump = distances[-1] // CLUMP
    if any(last - first < clump for first, last in zip(distances, distances[FEWEST - 1 :], strict=False)):
        return 0
    # The k-th closest of n uniform ids lies at about k/n of the space; k-1 makes the estimate unbiased.
    return ((len(distances) - 1) << 160) // distances[-1]


def is_crowded(size: int, width: int, farthest: int) -> bool:
    """Whether more than `width` nodes of `size` lie so near to a target that somebody must have put some there.

    `farthest`: XOR distance of the last of those that are known.
    """
    return size > CROWD_SIZE * width and farthest * size * CROWDING < width << 160


class SizeEstimate:
    """Median over the last 32 targets, so that a few targets crowded by an attacker don't move it."""

    def __init__(self) -> None:
        self._samples: OrderedDict[bytes, int] = OrderedDict()

    def add(self, target: bytes, distances: list[int]) -> None:
        """Take the XOR distances of the closest nodes to one target, ascending; the last of a target counts."""
        if sample := size_of(distances):
            self._samples.pop(target, None)
            self._samples[target] = sample
            if len(self._samples) > _SAMPLES:
                self._samples.popitem(last=False)

    def nodes(self, *, besides: bytes | None = None) -> int:
        """The estimate, 0 if unknown; `besides` says which target and its region are not to count, since they are in
        question."""
        samples = [
            sample for target, sample in self._samples.items() if besides is None or region(target) != region(besides)
        ]
        return median_low(samples) if samples else 0

    def is_crowded(self, target: bytes, width: int, farthest: int) -> bool:
        """Whether more than `width` nodes lie so near to a target that somebody must have put some there; see the
        function."""
        return is_crowded(self.nodes(besides=target), width, farthest)
