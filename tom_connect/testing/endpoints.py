"""Two endpoints on loopback that meet, for the tests of plugins and applications."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from tom_connect.addr import NodeAddr
from tom_connect.config import EndpointConfig
from tom_connect.connection import Connection
from tom_connect.endpoint import Endpoint, Target

ALPN: Final = "test/1"


@contextlib.asynccontextmanager
async def endpoint_pair(
    *plugins: object, second: dict[str, Any] | None = None, **fields: Any
) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """Two endpoints on loopback that use these plugins and none of those installed; closed at the end.

    `plugins`: modules or objects with hooks, or pairs (name, module), as in `EndpointConfig.extra_plugins`. `fields`:
    further fields of EndpointConfig, for both; `second`: those that are different for the second one. Both take the
    protocol `test/1`, and keep nothing.
    """
    values: dict[str, Any] = {
        "alpns": (ALPN,),
        "bind": ("127.0.0.1:0",),
        "allow_local": True,
        "persist": False,
        "plugins": (),
        "extra_plugins": plugins,
        **fields,
    }
    async with (
        Endpoint.bind(EndpointConfig(**values)) as first,
        Endpoint.bind(EndpointConfig(**{**values, **(second or {})})) as other,
    ):
        yield first, other


async def connected(
    dialer: Endpoint, waiting: Endpoint, where: Target | None = None, *, timeout: float = 30.0
) -> tuple[Connection, Connection]:
    """Dial one endpoint from the other; returns the dialer's end of the connection and the other end.

    `where`: what to dial, such as `waiting.node_id`, which discovery must find; by default all its addresses. Raises
    what `Endpoint.connect` does.
    """
    target: NodeAddr | Any = waiting.node_addr() if where is None else where

    async def accept() -> Connection:
        return await (await anext(waiting.accept())).accept()

    accepting = asyncio.ensure_future(accept())
    try:
        ours = await dialer.connect(target, ALPN, timeout=timeout)
        async with asyncio.timeout(timeout):
            return ours, await accepting
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
