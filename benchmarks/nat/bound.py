"""One endpoint of ours at a time, for processes that open a new one for each run."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

from tom_connect import Connection, Endpoint


@attrs.define(eq=False)
class Bound:
    """The endpoint, the task that takes its connections, and those."""

    endpoint: Endpoint | None = None
    accepting: asyncio.Task[None] | None = None
    connections: list[Connection] = attrs.field(factory=list)

    async def unbind(self) -> dict[str, Any]:
        """Close the endpoint, if there is one."""
        if self.endpoint is not None and self.accepting is not None:
            await self.endpoint.close()
            self.accepting.cancel()
            await asyncio.gather(self.accepting, return_exceptions=True)
            self.connections.clear()
            self.endpoint = None
        return {}
