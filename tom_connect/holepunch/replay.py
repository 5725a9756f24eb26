"""A sliding window that lets each counter of a session through once (RFC 4303 section 3.4.3)."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 4096
"""More than the disco packets that can be under way between two nodes at once. A call that lies in a mailbox for some
seconds must not count as old for the thousands that port probing sends meanwhile."""


class ReplayWindow:
    """Remembers which of the last 4,096 counters were seen."""

    __slots__ = ("_bits", "_top")

    def __init__(self) -> None:
        self._top = -1
        self._bits = 0

    def fresh(self, counter: int) -> bool:
        """Whether `counter` was not accepted before and is not too old to tell."""
        behind = self._top - counter
        return behind < 0 or (behind < WINDOW and not self._bits >> behind & 1)

    def accept(self, counter: int) -> None:
        """Remember `counter`; call it only after the packet has proven authentic."""
        if counter > self._top:
            shift = counter - self._top
            self._bits = 1 if shift >= WINDOW else ((self._bits << shift) | 1) & ((1 << WINDOW) - 1)
            self._top = counter
        else:
            self._bits |= 1 << (self._top - counter)
