"""What was found lately, for as long as it is fresh; a bounded table whose least recently used entry goes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

import attrs

V = TypeVar("V")

MAX_ENTRIES = 1024
"""Nodes that one endpoint may well talk to within the life of a record; about 2 MiB."""
MAX_FRESH = 60.0
"""Seconds at most for which nobody is asked again, whatever an answer allows: a node that moved must be found."""


@attrs.define
class Entry(Generic[V]):
    """One value, and until when (monotonic seconds) it is fresh."""

    value: V
    fresh_until: float


class FreshCache(Generic[V]):
    """Values by key. Stale ones stay, to be confirmed by a conditional request or used when nobody answers."""

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        self._limit = limit
        self._entries: OrderedDict[bytes, Entry[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> V | None:
        """The value, fresh or stale."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def fresh(self, key: bytes, now: float) -> V | None:
        """The value if nobody need be asked."""
        entry = self._entries.get(key)
        return self.get(key) if entry is not None and now < entry.fresh_until else None

    def put(self, key: bytes, value: V, fresh_for: float, now: float) -> None:
        """Keep a value; it is fresh for that many seconds from `now`, at most MAX_FRESH."""
        self._entries[key] = Entry(value, now + min(max(fresh_for, 0.0), MAX_FRESH))
        self._entries.move_to_end(key)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)
