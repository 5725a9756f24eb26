"""Bind an endpoint twice and say how long each took: `python -m benchmarks.startup.bind_once`, one JSON line.

Which plugins there are is said by TOM_CONNECT_DISABLE_PLUGINS. Nothing is sent to the internet: the DHT starts from an
address at which nobody is.
"""

from __future__ import annotations

import asyncio
import json
import time

from tom_connect import Endpoint, EndpointConfig


async def _bind(config: EndpointConfig) -> float:
    start = time.perf_counter()
    endpoint = await Endpoint.bind(config)
    taken = time.perf_counter() - start
    await endpoint.close()
    return taken * 1000


async def main(config: EndpointConfig) -> None:
    """Bind, close, bind again."""
    first = await _bind(config)
    print(json.dumps({"first": first, "again": await _bind(config)}))


if __name__ == "__main__":
    asyncio.run(main(EndpointConfig(bind=("127.0.0.1:0",), persist=False)))
