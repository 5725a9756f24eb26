"""Send a text to an echo server and print what comes back.

python examples/echo_client.py NODE_ID TEXT [--bootstrap HOST:PORT] [--allow-local]
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tom_connect import Endpoint, EndpointConfig, TomError
from tom_dht_mainline import DEFAULT_BOOTSTRAP
from tom_dht_mainline.config import DhtConfig

ALPN = "echo/1"


async def main() -> str:
    """Dial, send, and return the answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="node id or ticket of the server")
    parser.add_argument("text")
    parser.add_argument("--bootstrap", action="append", help="first node of the DHT, HOST:PORT")
    parser.add_argument("--allow-local", action="store_true", help="dial local addresses too")
    options = parser.parse_args()

    config = EndpointConfig(
        allow_local=options.allow_local,
        plugin_configs={"dht": DhtConfig(bootstrap=options.bootstrap or DEFAULT_BOOTSTRAP)},
    )
    async with Endpoint.bind(config) as endpoint, await endpoint.connect(options.target, ALPN) as connection:
        stream = await connection.open_bi()
        stream.write(options.text.encode())
        stream.finish()
        return (await stream.read()).decode()


if __name__ == "__main__":
    try:
        print(asyncio.run(main()))
    except TomError as error:
        sys.exit(str(error))
