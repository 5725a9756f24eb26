"""A connection with one node that is made anew when it breaks, and what becomes of its path."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import attrs

from tom_campaign.core.control import DATA_ALPN
from tom_connect import Connection, Endpoint, NodeAddr, TomError

MAX_SPANS: Final = 100
"""Changes of path that a result tells of; one that flaps more often is told by its first ones."""
GIVEN: Final = "caller"
"""What the core calls the source of an address that stands in a ticket, which nobody had to look up."""
PAUSE: Final = 0.5
"""Seconds between two attempts to reach a node that refuses or is gone: each of them waits by itself, mostly."""


def path_kind(connection: Connection | None) -> str:
    """`direct`, `relay`, or `none`."""
    if connection is None or connection.is_closed:
        return "none"
    return next((path.kind for path in connection.paths() if path.active), "none")


@attrs.define(eq=False)
class Session:
    """The connection with `target`; `connection` is None while there is none."""

    endpoint: Endpoint
    target: NodeAddr
    connection: Connection | None = None
    reconnections: int = 0
    spans: list[tuple[float, str]] = attrs.Factory(list)
    """From when on, in seconds of the loop's clock, which kind of path carried traffic."""
    error: str | None = None
    """Why the last dial failed."""
    source: str | None = None
    """Which source first told where the target is, at the last dial; None if nobody had to be asked."""

    async def dial(self, timeout: float) -> Connection:
        """Close what there is and connect anew; raises TomError."""
        await self.close()
        self.source = None
        self.connection = await self.endpoint.connect(
            self.target, DATA_ALPN, timeout=timeout, on_progress=self._progressed
        )
        return self.connection

    def _progressed(self, event: object) -> None:
        found = getattr(event, "source", None)
        if found != GIVEN:
            self.source = self.source or found

    async def opened(self, timeout: float) -> Connection:
        """The connection that there is, or a new one; raises TomError."""
        if self.connection is not None and not self.connection.is_closed:
            return self.connection
        return await self.dial(timeout)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()

    def note_path(self) -> None:
        """Remember which kind of path there is now."""
        kind = path_kind(self.connection)
        if len(self.spans) < MAX_SPANS and (not self.spans or self.spans[-1][1] != kind):
            self.spans.append((asyncio.get_running_loop().time(), kind))

    @contextlib.asynccontextmanager
    async def kept(self, timeout: float, on_connected: Callable[[Connection], None]) -> AsyncIterator[None]:
        """Meanwhile follow the path, and connect anew whenever the connection has ended.

        `on_connected` hears of each connection, the present one included.
        """
        self.spans.clear()
        self.note_path()
        task = asyncio.create_task(self._keep(timeout, on_connected), name="keeping a connection")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.note_path()

    async def _keep(self, timeout: float, on_connected: Callable[[Connection], None]) -> None:
        while True:
            connection = self.connection
            if connection is not None and not connection.is_closed:
                on_connected(connection)
                with connection.path_events() as events:
                    self.note_path()
                    async for _event in events:
                        self.note_path()
            self.note_path()
            try:
                await self.dial(timeout)
            except TomError as exc:
                self.error = str(exc)
                await asyncio.sleep(PAUSE)
            else:
                self.reconnections += 1
