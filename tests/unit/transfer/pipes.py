"""Two ends of a stream in memory, with faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

HIGH_WATER = 1024 * 1024


class _Reader(asyncio.StreamReader):
    """Tells the writer when there is room again."""

    def __init__(self) -> None:
        super().__init__(limit=HIGH_WATER)
        self.was_read = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return len(self._buffer) > HIGH_WATER  # type: ignore[attr-defined]

    async def read(self, n: int = -1) -> bytes:
        data = await super().read(n)
        self.was_read.set()
        return data


class Pipe:
    """One direction: `write` and `drain` at one side, an asyncio.StreamReader at the other.

    `cut_after`: bytes after which the reader sees a lost connection; `tamper`: changes each piece that passes.
    """

    def __init__(self, *, cut_after: int | None = None, tamper: Callable[[bytes], bytes] | None = None) -> None:
        self.reader = _Reader()
        self.passed = 0
        self.cut = asyncio.Event()
        self._cut_after = cut_after
        self._tamper = tamper
        self._ended = False

    def write(self, data: bytes) -> None:
        if self.cut.is_set():
            raise ConnectionResetError("the line is cut")
        assert not self._ended, "written after the end"
        if self._tamper is not None:
            data = self._tamper(data)
        if self._cut_after is not None and self.passed + len(data) >= self._cut_after:
            self.reader.feed_data(data[: self._cut_after - self.passed])
            self.passed = self._cut_after
            self.break_off()
            return
        self.passed += len(data)
        self.reader.feed_data(data)

    async def drain(self) -> None:
        # As a socket that is full: whoever writes waits for whoever reads.
        while self.reader.is_full and not self.cut.is_set():
            self.reader.was_read.clear()
            await self.reader.was_read.wait()
        if self.cut.is_set():
            raise ConnectionResetError("the line is cut")

    def write_eof(self) -> None:
        if not self._ended and not self.cut.is_set():
            self._ended = True
            self.reader.feed_eof()

    def break_off(self) -> None:
        """Lose the connection: what was written is still read, as from a socket's buffer."""
        self.cut.set()
        self.reader.was_read.set()
        if not self._ended:
            self.reader.feed_eof()
