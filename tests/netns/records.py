"""Numbered records that go out every 20 ms, and what is known of those that came.

All times are seconds of CLOCK_MONOTONIC, which is one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

INTERVAL = 0.02
_RECORD = struct.Struct("!Q")


class Records:
    """One end's records: how many it sent, and the times at which the other's came."""

    def __init__(self) -> None:
        self.sent = 0
        self.arrivals: list[float] = []
        self.broken: str | None = None
        self.stopping = asyncio.Event()
        self._rest = b""

    async def send(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write a record every 20 ms until `stopping` is set; after a pause none are sent to catch up."""
        due = time.monotonic()
        while not self.stopping.is_set():
            await write(_RECORD.pack(self.sent))
            self.sent += 1
            due = max(due + INTERVAL, time.monotonic())
            try:
                await asyncio.wait_for(self.stopping.wait(), due - time.monotonic())
            except TimeoutError:
                continue

    def received(self, data: bytes) -> None:
        """Take what came, and see whether each record is the one that is due."""
        now = time.monotonic()
        rest = self._rest + data
        while len(rest) >= _RECORD.size:
            (number,) = _RECORD.unpack_from(rest)
            rest = rest[_RECORD.size :]
            if number != len(self.arrivals) and self.broken is None:
                self.broken = f"record {number} came where {len(self.arrivals)} was due"
            self.arrivals.append(now)
        self._rest = rest

    def ended(self) -> Mapping[str, Any]:
        """What came in all, and what was wrong with it."""
        if self._rest and self.broken is None:
            self.broken = f"{len(self._rest)} bytes of a record that was cut off"
        return {"received": len(self.arrivals), "broken": self.broken}

    async def state(self, since: float) -> Mapping[str, Any]:
        """The records that came, the last time that any did, and the longest time without one since then.

        `gap` is (seconds, when it ended); a silence that still lasts counts, and has no end.
        """
        now = time.monotonic()
        times = [since, *(at for at in self.arrivals if at >= since)]
        longest = max(((after - before, after) for before, after in itertools.pairwise(times)), default=(0.0, since))
        if now - times[-1] > longest[0]:
            return {"received": len(self.arrivals), "last": times[-1], "gap": [now - times[-1], None]}
        return {"received": len(self.arrivals), "last": times[-1], "gap": list(longest)}


class Talk:
    """One connection, and one stream on it with records in both directions; whose connection it is, subclasses know."""

    def __init__(self) -> None:
        self.records = Records()
        self._tasks: list[asyncio.Task[None]] = []

    async def stop(self) -> Mapping[str, Any]:
        """Send no more, finish the stream, and tell how many records went out."""
        self.records.stopping.set()
        await self._tasks[0]
        return {"sent": self.records.sent}

    async def finished(self) -> Mapping[str, Any]:
        """Wait for the end of the other's stream; tell how many records came, and what was wrong with them."""
        await self._tasks[1]
        return self.records.ended()

    async def aclose(self) -> None:
        """End what still talks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
