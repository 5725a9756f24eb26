"""A value that changes, and those who wait for it to change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Watch(Generic[T]):
    """Holds the newest value; `async for value in watch` gives it now and after every change.

    A slow reader misses values between, never the newest. Iteration ends when the owner closes the watch.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._waiters: set[asyncio.Future[None]] = set()
        self._version = 0
        self._closed = False

    @property
    def value(self) -> T:
        """The newest value."""
        return self._value

    def set(self, value: T) -> None:
        """Replace the value; readers wake only if it differs from the old one."""
        if value != self._value and not self._closed:
            self._value = value
            self._wake()

    def close(self) -> None:
        """End every iteration, now and later."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def changes(self) -> AsyncIterator[T]:
        """The value now, then each newer one."""
        seen = -1
        while not self._closed:
            if seen != self._version:
                seen = self._version
                yield self._value
                continue
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

    def __aiter__(self) -> AsyncIterator[T]:
        return self.changes()
