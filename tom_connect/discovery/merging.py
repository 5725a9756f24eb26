"""What several answers about one node come to."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import attrs

from tom_connect.abc import FoundAddr
from tom_connect.addr import NodeAddr

FUTURE_US = 2 * 3600 * 1_000_000
"""Microseconds that a record may be ahead of our clock, whichever of the two clocks is wrong."""


def from_future(found: FoundAddr, now_us: int) -> bool:
    """Whether an answer was signed at a time that has not come. `now_us`: microseconds since 1970."""
    return found.timestamp_us is not None and found.timestamp_us > now_us + FUTURE_US


def merged(answers: Iterable[FoundAddr]) -> FoundAddr | None:
    """The newest signed answer, with what unsigned ones add; None if there is no answer.

    Of two signed answers the later one replaces the other whole: what its owner no longer names is no longer so. Of
    equal ones the first is kept. `source` names the one whose answer it is.
    """
    signed: FoundAddr | None = None
    unsigned: list[FoundAddr] = []
    for found in answers:
        if found.timestamp_us is None:
            unsigned.append(found)
        elif signed is None or signed.timestamp_us is None or found.timestamp_us > signed.timestamp_us:
            signed = found
    parts = [*([signed] if signed is not None else []), *unsigned]
    if len(parts) < 2:
        return parts[0] if parts else None
    first, *rest = parts
    addr = functools.reduce(NodeAddr.merged, (found.addr for found in rest), first.addr)
    return attrs.evolve(first, addr=attrs.evolve(addr, user_data=first.addr.user_data))
