"""The child that runs one endpoint of ours, which sends back what comes on a bidirectional stream.

`python -m tests.interop.peers.tom_process SEED IP:PORT`, for namespaces in which the tests themselves do not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from tests.interop.peers.lines import serve
from tom_connect import Connection, Endpoint, EndpointConfig, SecretKey
from tom_connect.exceptions import TomError

ALPN = "echo/1"


async def echo(connection: Connection) -> None:
    """Answer streams until the connection ends."""
    with contextlib.suppress(TomError):
        while True:
            stream = await connection.accept_bi()
            stream.write(await stream.read())
            stream.finish()


async def accept(endpoint: Endpoint) -> None:
    """Accept and echo until the endpoint closes."""
    async with asyncio.TaskGroup() as group:
        async for incoming in endpoint.accept():
            group.create_task(echo(await incoming.accept()))


async def main(seed: str, bind: str) -> None:
    """Bind, say who and where we are, and answer until stdin ends."""
    config = EndpointConfig(
        alpns=(ALPN,),
        bind=(bind,),
        allow_local=True,
        persist=False,
        plugins=(),
        secret_key=SecretKey(bytes.fromhex(seed)),
    )
    async with Endpoint.bind(config) as endpoint:
        accepting = asyncio.create_task(accept(endpoint))
        try:
            await serve({}, addresses=[str(addr) for addr in endpoint.local_addrs])
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
