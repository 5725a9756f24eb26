"""Bind an endpoint, dial a node at once, bind another; say how long each took, as one JSON line.

`python -m benchmarks.startup.bind_once NODE_ID IP:PORT`; TOM_CONNECT_DISABLE_PLUGINS says which plugins there are.
Nothing is sent to the internet: no name is looked up, so that the DHT has nobody to ask.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

from benchmarks.startup import ALPN
from tom_connect import Endpoint, EndpointConfig, NodeAddr, NodeId

_found = socket.getaddrinfo


def _numeric(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002
    return _found(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)


async def main(config: EndpointConfig, callee: NodeAddr) -> None:
    """Bind, dial, close, bind again."""
    start = time.perf_counter()
    async with Endpoint.bind(config) as endpoint:
        bound = time.perf_counter()
        await endpoint.connect(callee, ALPN)
        dialed = time.perf_counter()
    again = time.perf_counter()
    async with Endpoint.bind(config):
        taken = {"first": bound - start, "dialed": dialed - start, "again": time.perf_counter() - again}
    print(json.dumps({name: seconds * 1000 for name, seconds in taken.items()}))


if __name__ == "__main__":
    settings = EndpointConfig(bind=("127.0.0.1:0",), allow_local=True, persist=False)
    socket.getaddrinfo = _numeric
    asyncio.run(main(settings, NodeAddr(NodeId.parse(sys.argv[1]), (), (sys.argv[2],))))
