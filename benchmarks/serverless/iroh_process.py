"""The child that runs one iroh endpoint without a relay and without discovery servers: all that is left in the lab.

iroh's binding is typed in part only, so its objects are Any here and stay in this file.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import attrs
import iroh

from tests.interop.peers.iroh_process import open_endpoint
from tests.interop.peers.lines import serve

ALPN = "serverless/1"


@attrs.define(eq=False)
class Node:
    """One endpoint at a time."""

    endpoint: Any = None

    async def bind(self, port: int = 0) -> dict[str, Any]:
        """Open a fresh endpoint: no relay, since there is none, and nobody to ask where others are."""
        await self.unbind()
        self.endpoint = await open_endpoint(None, f"0.0.0.0:{port}", [ALPN])
        return {"node_id": str(self.endpoint.id())}

    async def dial(self, node_id: str, wait: float) -> dict[str, Any]:
        """Dial a node by its id, all that is known; seconds until connected, None and the reason if it never is."""
        address = iroh.EndpointAddr(iroh.EndpointId.from_string(node_id), None, [])
        began = time.monotonic()
        try:
            connection = await asyncio.wait_for(self.endpoint.connect(address, ALPN.encode()), wait)
        except iroh.IrohError as error:
            # It shows where in its source each error came from, a line for each.
            lines = (line.split(" (/")[0].strip() for line in error.message().splitlines())
            return {"connected": None, "direct": None, "why": ": ".join(line for line in lines if line[:2] != "(/")}
        except TimeoutError:
            return {"connected": None, "direct": None, "why": f"nothing within {wait:g} s"}
        taken = time.monotonic() - began
        connection.close(0, b"")
        return {"connected": taken, "direct": taken, "why": None}

    async def unbind(self) -> dict[str, Any]:
        """Close the endpoint, if there is one."""
        if self.endpoint is not None:
            await self.endpoint.close()
            self.endpoint = None
        return {}


async def main() -> None:
    """Answer until standard input ends."""
    node = Node()
    try:
        await serve({name: getattr(node, name) for name in ("bind", "dial", "unbind")})
    finally:
        await node.unbind()


if __name__ == "__main__":
    asyncio.run(main())
