"""Items as they arrive: the stream that a node's gets feed."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from .core import Event, Finished, GetOperation, MutableItem, ValueFound, Wanted
from .errors import DhtClosedError


class GetStarter(Protocol):
    """What a stream needs of its node."""

    def start_get(
        self, public_key: bytes, salt: bytes, min_seq: int, on_event: EventHandler, wanted: Wanted | None = None
    ) -> GetOperation:
        """Start a get whose events go to `on_event`."""

    def cancel(self, operation: GetOperation) -> None:
        """End a get early."""


class EventHandler(Protocol):
    """Takes the events of one operation, and None if the node closes first."""

    def __call__(self, event: Event | None) -> None:
        """Called once for each event, in order."""


class ValueStream:
    """Valid mutable items as they arrive: `async for item in stream`; ends when every get has ended.

    One stream may carry several gets, added at any time; each gives its first valid item at once and later ones only
    with a higher `seq`. Use it with `async with`, or call `close()`: that cancels what is still under way.
    """

    def __init__(self, node: GetStarter) -> None:
        self._node = node
        self._items: deque[MutableItem] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._pending: set[GetOperation] = set()
        self._node_closed = False
        self.operations: list[GetOperation] = []
        """Every get that was added, with its counts."""

    def add(
        self, public_key: bytes, salt: bytes = b"", *, min_seq: int = 0, wanted: Wanted | None = None
    ) -> GetOperation:
        """Start a get of a key's item, or of those that are `wanted`.

        Raises DhtUsageError for what the DHT can't carry, DhtClosedError.
        """
        operation = self._node.start_get(public_key, salt, min_seq, self._on_event, wanted)
        self.operations.append(operation)
        if not operation.finished:
            self._pending.add(operation)
        return operation

    def _on_event(self, event: Event | None) -> None:
        if event is None:
            self._node_closed = True
        elif isinstance(event, ValueFound):
            if isinstance(event.item, MutableItem):
                self._items.append(event.item)
        elif isinstance(event, Finished) and isinstance(event.operation, GetOperation):
            self._pending.discard(event.operation)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def __anext__(self) -> MutableItem:
        while not self._items:
            if self._node_closed:
                raise DhtClosedError("the DHT node was closed during a get")
            if not self._pending:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def __aiter__(self) -> Self:
        return self

    def close(self) -> None:
        """Cancel the gets that are under way and forget what was not read."""
        for operation in tuple(self._pending):
            self._node.cancel(operation)
        self._pending.clear()
        self._items.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
