"""Dials a node at one address and says in a line of JSON by which path it was reached, or why it was not.

Arguments: node id, address, seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tom_connect import Endpoint, EndpointConfig, NodeAddr, NodeId, TomError

ALPN = "mapped/1"


async def main(node_id: str, addr: str, timeout: float) -> dict[str, object]:
    async with Endpoint.bind(EndpointConfig(persist=False, plugins=())) as endpoint:
        try:
            connection = await endpoint.connect(NodeAddr(NodeId.parse(node_id), (), [addr]), ALPN, timeout=timeout)
        except TomError as exc:
            return {"error": type(exc).__name__}
        stream = await connection.open_bi()
        stream.write(b"through the router")
        stream.finish()
        return {"echo": (await stream.read()).decode(), "path": [str(p.addr) for p in connection.paths() if p.active]}


print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))))
