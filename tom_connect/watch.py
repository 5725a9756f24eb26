"""A value that changes, and those who wait for it to change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from tom_connect.exceptions import EndpointClosedError

T = TypeVar("T")


class Watch(Generic[T]):
    """Holds the newest value; `async for value in watch` gives it now and after every change.

    A slow reader misses values between, never the newest. Iteration ends when the owner closes the watch.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 0
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def value(self) -> T:
        """The newest value."""
        return self._value

    def set(self, value: T) -> None:
        """Replace the value; readers wake only if it differs from the old one."""
        if value != self._value and not self._closed:
            self._value = value
            self._version += 1
            self._wake()

    def close(self) -> None:
        """End every iteration, now and later."""
        self._closed = True
        self._wake()

    async def other_than(self, value: T) -> T:
        """Wait until the value differs from `value`; raises EndpointClosedError once the watch is closed."""
        while self._value == value:
            if self._closed:
                raise EndpointClosedError("what was watched is closed")
            await self._wait()
        return self._value

    def __aiter__(self) -> AsyncIterator[T]:
        return _Changes(self)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class _Changes(AsyncIterator[T]):
    # A class and not an async generator, so that one abandoned in the middle leaves nothing to be closed.

    def __init__(self, watch: Watch[T]) -> None:
        self._watch = watch
        self._seen = -1

    async def __anext__(self) -> T:
        while not self._watch._closed:
            if self._seen != self._watch._version:
                self._seen = self._watch._version
                return self._watch._value
            await self._watch._wait()
        raise StopAsyncIteration
