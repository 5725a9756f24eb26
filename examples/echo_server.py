"""Send back whatever comes in.

    python examples/echo_server.py [--bootstrap HOST:PORT] [--allow-local]

Prints the node id, which is all that a client needs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from tom_connect import Connection, Endpoint, EndpointConfig, Router
from tom_dht_mainline import DEFAULT_BOOTSTRAP
from tom_dht_mainline.config import DhtConfig

ALPN = "echo/1"


async def echo(connection: Connection) -> None:
    """Answer one stream with its own bytes."""
    stream = await connection.accept_bi()
    async for chunk in stream:
        stream.write(chunk)
        await stream.drain()
    stream.finish()
    # Whoever closes may cut off what is still on its way, so the client does.
    await connection.closed()


async def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", action="append", help="first node of the DHT, HOST:PORT")
    parser.add_argument("--allow-local", action="store_true", help="publish local addresses too")
    options = parser.parse_args()

    config = EndpointConfig(
        allow_local=options.allow_local,
        plugin_configs={"dht": DhtConfig(bootstrap=options.bootstrap or DEFAULT_BOOTSTRAP)},
    )
    async with Endpoint.bind(config) as endpoint:
        print(endpoint.node_id, flush=True)
        await Router(endpoint).route(ALPN, echo).serve()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
