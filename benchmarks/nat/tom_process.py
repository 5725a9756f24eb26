"""The child that runs one endpoint of ours in a lab's host: bound anew for each run, it dials or is dialed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import attrs

from benchmarks.nat.bound import Bound
from benchmarks.nat.directness import direct_path
from tests.interop.peers.lines import serve
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr

ALPN = "meet/1"
#: Seconds for a connection to know why it is relayed: attempts and questions must have failed first.
WHY_TIMEOUT = 60.0
#: Seconds for a relay in the same lab to let us in, on a machine that is busy with other things.
ONLINE_TIMEOUT = 30.0


@attrs.define(eq=False)
class Node(Bound):
    """Dials, or waits to be dialed."""

    async def bind(self, relay: str, port: int = 0, external: str | None = None) -> dict[str, Any]:
        """Open a fresh endpoint and wait until the relay lets it in; what `external` tells others, it finds out."""
        await self.unbind()
        config = EndpointConfig(
            alpns=(ALPN,),
            bind=(f"0.0.0.0:{port}", f"[::]:{port}"),
            persist=False,
            plugins=("relay",),
            relay=(relay,),
        )
        self.endpoint = await Endpoint.bind(config)
        self.accepting = asyncio.create_task(self._accept(self.endpoint))
        async with asyncio.timeout(ONLINE_TIMEOUT):
            async for addr in self.endpoint.watch_addr():
                if addr.relay_urls:
                    break
        return {"node_id": str(self.endpoint.node_id)}

    async def _accept(self, endpoint: Endpoint) -> None:
        async for incoming in endpoint.accept():
            self.connections.append(await incoming.accept())

    async def dial(self, node_id: str, relay: str, wait: float, until: str | None = None) -> dict[str, Any]:
        """Dial a node through its relay, and say after how many seconds it was connected, and on a direct path.

        `direct` is None if there is none within `wait` seconds, `addr` where it leads. `why` it is relayed
        may become clear later: with `until`, it is waited for that word.
        """
        assert self.endpoint is not None
        began = time.monotonic()
        connection = await self.endpoint.connect(NodeAddr(node_id, [relay]), ALPN, timeout=max(wait, 10.0))
        connected = time.monotonic() - began
        async with connection:
            addr = await direct_path(connection, wait)
            direct = time.monotonic() - began if addr is not None else None
            shown = str(addr) if addr is not None else None
            why = await _why_relayed(connection, until) if addr is None else None
            return {"connected": connected, "direct": direct, "addr": shown, "why": why}

    async def addresses(self) -> dict[str, Any]:
        """Say at which addresses the endpoint believes to be reachable."""
        assert self.endpoint is not None
        return {"addresses": [str(addr) for addr in self.endpoint.node_addr().direct_addrs]}


async def _why_relayed(connection: Connection, until: str | None) -> str | None:
    deadline = time.monotonic() + WHY_TIMEOUT
    # It is asked again and again, since a word that changes tells nobody.
    while (why := connection.stats().why_relayed) != until and until is not None and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return why


async def main() -> None:
    """Answer until standard input ends."""
    node = Node()
    handlers = {name: getattr(node, name) for name in ("bind", "dial", "addresses", "unbind")}
    try:
        await serve(handlers)
    finally:
        await node.unbind()


if __name__ == "__main__":
    asyncio.run(main())
