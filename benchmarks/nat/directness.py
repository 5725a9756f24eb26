"""When a connection goes directly."""

from __future__ import annotations

import asyncio
import contextlib

from tom_connect import Connection
from tom_connect.addr import SocketAddr
from tom_connect.holepunch.events import PathSelected


async def direct_path(connection: Connection, wait: float) -> SocketAddr | None:
    """The address to which a connection's traffic goes directly, within `wait` seconds; None if it does not."""
    with connection.path_events() as events, contextlib.suppress(TimeoutError):
        for path in connection.paths():
            if path.active and path.kind == "direct":
                return SocketAddr.parse(str(path.addr))
        async with asyncio.timeout(wait):
            async for event in events:
                if isinstance(event, PathSelected) and isinstance(event.path, SocketAddr):
                    return event.path
    return None
