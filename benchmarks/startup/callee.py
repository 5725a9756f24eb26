"""The child that is dialed: `python -m benchmarks.startup.callee`, an endpoint without plugins on loopback."""

from __future__ import annotations

import asyncio

from benchmarks.startup import ALPN
from tests.interop.peers.lines import serve
from tom_connect import Connection, Endpoint, EndpointConfig, Router


async def _stay(connection: Connection) -> None:
    await connection.closed()


async def main() -> None:
    """Accept until stdin ends."""
    config = EndpointConfig(bind=("127.0.0.1:0",), allow_local=True, persist=False, disable_plugins=("*",))
    async with Endpoint.bind(config) as endpoint:
        accepting = asyncio.create_task(Router(endpoint).route(ALPN, _stay).serve())
        await serve({}, node_id=str(endpoint.node_id), place=str(endpoint.local_addrs[0]))
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
