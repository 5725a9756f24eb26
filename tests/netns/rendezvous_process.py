"""The child that runs one endpoint with `dht_only`, and keeps a connection that it dialed to talk over it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from typing import Any

import attrs

from benchmarks.serverless.tom_process import ALPN, Node
from tests.interop.peers.lines import serve
from tom_connect import BiStream, Connection, NetworkError, NodeId


@attrs.define(eq=False)
class Talker(Node):
    """A node with a conversation."""

    connection: Connection | None = None
    stream: BiStream | None = None

    async def talk(self, node_id: str, wait: float) -> dict[str, Any]:
        """Dial a node and say something; seconds until the answer, None where there was none in time, and why."""
        began = time.monotonic()
        try:
            self.connection = await self._bound.connect(NodeId.parse(node_id), ALPN, timeout=wait)
        except NetworkError as error:
            return {"seconds": None, "why": str(error)}
        self.stream = await self.connection.open_bi()
        return {"seconds": (await self.say(wait))["seconds"] and time.monotonic() - began, "why": None}

    async def say(self, wait: float) -> dict[str, Any]:
        """Say something over the same connection; seconds until the answer, None if it did not come in time."""
        assert self.stream is not None
        began = time.monotonic()
        self.stream.write(b"hello")
        with contextlib.suppress(TimeoutError, NetworkError):
            async with asyncio.timeout(wait):
                await self.stream.read(4096)
                return {"seconds": time.monotonic() - began}
        return {"seconds": None}

    async def invited(self, wait: float) -> dict[str, Any]:
        """Wait until the DHT knows how the node is to be called."""
        async with asyncio.timeout(wait):
            while not str(self._bound.diagnostics()["dht"].get("calls")).startswith("invited"):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        return {}

    async def hang_up(self) -> dict[str, Any]:
        """End the conversation, and forget the paths as after a minute."""
        assert self.connection is not None
        await self.connection.close()
        return {}

    async def paths(self) -> dict[str, Any]:
        """Say which paths the connections have."""
        connections = [*self.connections, *([self.connection] if self.connection is not None else [])]
        return {"paths": [[f"{path.kind} {path.addr}" for path in each.paths()] for each in connections]}

    async def counters(self) -> dict[str, Any]:
        """Say what the magic socket has counted of rendezvous."""
        return {name: count for name, count in self._bound._magic.counters.items() if "rendezvous" in name}


async def main(level: str = "ERROR") -> None:
    """Answer until standard input ends."""
    logging.basicConfig(level=level)
    node = Talker()
    names = ("bind", "published", "dht", "unbind", "invited", "talk", "say", "hang_up", "paths", "counters")
    try:
        await serve({name: getattr(node, name) for name in names})
    finally:
        await node.unbind()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
