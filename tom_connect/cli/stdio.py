"""Standard input and output without blocking the event loop, and without holding up the program's end.

Reads and writes of a pipe or terminal can block for ever, and asyncio can't watch every kind of file on every system.
So each stream has a thread of its own, a daemon: one that still waits for input when the program ends is left behind.
"""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Generic, TypeVar

from tom_connect.cli.output import OutputClosedError

T = TypeVar("T")
CHUNK = 64 * 1024


class _Worker(Generic[T]):
    """Makes blocking calls, one after the other, in a daemon thread that starts with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[T], Callable[[], T]]]
        self._calls = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """What it will return or raise; cancelling that does not end the call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._calls.put((loop, future, function))
        return future

    def _run(self) -> None:
        while True:
            loop, future, function = self._calls.get()
            outcome: Any
            try:
                outcome = function()
            except BaseException as exc:
                outcome = exc
            try:
                loop.call_soon_threadsafe(_settle, future, outcome)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class Stdin:
    """Standard input as bytes."""

    def __init__(self) -> None:
        self._worker: _Worker[bytes] = _Worker("standard input")
        self._fd = _fileno(sys.stdin)
        self._next: asyncio.Future[bytes] | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a person types."""
        return self._fd is not None and os.isatty(self._fd)

    async def read(self) -> bytes:
        """What comes next, at most 64 KiB; b"" at the end, or if there is no standard input."""
        fd = self._fd
        if fd is None:
            return b""
        if self._next is None:
            self._next = self._worker.call(lambda: _read(fd))
        # Who is cancelled while waiting leaves what comes to the next reader.
        data = await asyncio.shield(self._next)
        self._next = None
        return data


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, CHUNK)
    except OSError as exc:
        if exc.errno in (errno.EBADF, errno.EIO):  # closed, or a terminal that is not ours to read
            return b""
        raise


class Stdout:
    """Standard output for bytes."""

    def __init__(self) -> None:
        self._worker: _Worker[None] = _Worker("standard output")
        self._fd = _fileno(sys.stdout)

    async def write(self, data: bytes) -> None:
        """Write all of it; raises OutputClosedError if nobody reads any more."""
        fd = self._fd
        if fd is None:
            return
        try:
            await self._worker.call(lambda: _write_all(fd, data))
        except (BrokenPipeError, ConnectionResetError) as exc:
            raise OutputClosedError from exc


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _fileno(stream: IO[Any] | None) -> int | None:
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError):
        return None
