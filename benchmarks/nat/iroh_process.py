"""The child that runs one iroh endpoint in a lab's host: bound anew for each run, it dials or is dialed.

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

ALPN = "meet/1"
ONLINE_TIMEOUT = 30.0


@attrs.define(eq=False)
class Node:
    """One endpoint at a time, with the task that takes its connections."""

    endpoint: Any = None
    accepting: asyncio.Task[None] | None = None
    connections: list[Any] = attrs.field(factory=list)

    async def bind(self, relay: str, port: int = 0, external: str | None = None) -> dict[str, Any]:
        """Open a fresh endpoint, and wait until it is online.

        `external`: IP:PORT at which the NAT maps `port`. iroh learns it from relays with publicly trusted certificates
        alone, which a lab can't have, so it is told.
        """
        await self.unbind()
        self.endpoint = await open_endpoint(None, f"0.0.0.0:{port}", [ALPN], [relay])
        self.accepting = asyncio.create_task(self._accept(self.endpoint))
        if external is not None:
            await self.endpoint.add_external_addr(external)
        await asyncio.wait_for(self.endpoint.online(), ONLINE_TIMEOUT)
        return {"node_id": str(self.endpoint.id())}

    async def _accept(self, endpoint: Any) -> None:
        while (incoming := await endpoint.accept_next()) is not None:
            self.connections.append(await (await incoming.accept()).connect())

    async def dial(self, node_id: str, relay: str, wait: float, until: str | None = None) -> dict[str, Any]:
        """Dial a node through its relay, and say after how many seconds it was connected, and on a direct path."""
        address = iroh.EndpointAddr(iroh.EndpointId.from_string(node_id), relay, [])
        began = time.monotonic()
        try:
            connection = await self.endpoint.connect(address, ALPN.encode())
        except iroh.IrohError as error:
            raise ConnectionError(error.message()) from error
        connected = time.monotonic() - began
        try:
            while (taken := time.monotonic() - began) < wait:
                for path in connection.paths():
                    if path.is_selected and not path.is_relay:
                        return {"connected": connected, "direct": taken, "addr": path.remote_addr, "why": None}
                await asyncio.sleep(0.001)  # it has no way to wait for a path
            return {"connected": connected, "direct": None, "addr": None, "why": None}
        finally:
            connection.close(0, b"")

    async def unbind(self) -> dict[str, Any]:
        """Close the endpoint, if there is one."""
        if self.endpoint is not None and self.accepting is not None:
            await self.endpoint.close()
            self.accepting.cancel()
            await asyncio.gather(self.accepting, return_exceptions=True)
            self.connections.clear()
            self.endpoint = None
        return {}


async def main() -> None:
    """Answer until standard input ends."""
    node = Node()
    handlers = {name: getattr(node, name) for name in ("bind", "dial", "unbind")}
    try:
        await serve(handlers)
    finally:
        await node.unbind()


if __name__ == "__main__":
    asyncio.run(main())
