"""The child that is one end of a live stream, with a node of iroh's.

iroh's binding is typed in part only, so its objects are Any here and stay in this file.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import iroh

from tests.interop.peers.iroh_process import open_endpoint
from tests.interop.peers.lines import serve
from tests.netns.records import Talk

ALPN = "talk/1"
READ_SIZE = 1 << 16


class Talker(Talk):
    """Talks over a connection of iroh's."""

    def __init__(self, endpoint: Any) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.connection: Any = None

    async def accept(self) -> Mapping[str, Any]:
        """Take the other's connection and stream, and begin to talk."""
        incoming = await self.endpoint.accept_next()
        self.connection = await (await incoming.accept()).connect()
        self._talk(await self.connection.accept_bi())
        return {}

    async def dial(self, node_id: str, relay: str) -> Mapping[str, Any]:
        """Connect, open the stream and begin to talk."""
        address = iroh.EndpointAddr(iroh.EndpointId.from_string(node_id), relay, [])
        self.connection = await self.endpoint.connect(address, ALPN.encode())
        self._talk(await self.connection.open_bi())
        return {}

    def _talk(self, stream: Any) -> None:
        self._tasks = [asyncio.create_task(work) for work in (self._send(stream), self._receive(stream))]

    async def _send(self, stream: Any) -> None:
        send = stream.send()
        await self.records.send(send.write_all)
        await send.finish()

    async def _receive(self, stream: Any) -> None:
        recv = stream.recv()
        while data := await recv.read(READ_SIZE):
            self.records.received(bytes(data))

    async def path(self) -> Mapping[str, Any]:
        """The path in use: `direct`, `relay`, or none."""
        for path in self.connection.paths():
            if path.is_selected:
                return {"kind": "relay" if path.is_relay else "direct", "where": str(path.remote_addr)}
        return {"kind": "none", "where": ""}

    async def external(self, addr: str) -> Mapping[str, Any]:
        """Say at which IP:PORT the NAT maps the socket.

        iroh learns it from relays with publicly trusted certificates alone, which a lab can't have, so it is told.
        """
        await self.endpoint.add_external_addr(addr)
        return {}


async def main(relay: str, port: str, external: str, _level: str) -> None:
    """Bind, say who we are, and answer until standard input ends."""
    endpoint = await open_endpoint(None, f"0.0.0.0:{port}", [ALPN], [relay])
    talker = Talker(endpoint)
    await talker.external(external)
    await asyncio.wait_for(endpoint.online(), 30)
    names = ("accept", "dial", "path", "external", "stop", "finished")
    handlers = {name: getattr(talker, name) for name in names} | {"state": talker.records.state}
    try:
        await serve(handlers, node_id=str(endpoint.id()))
    finally:
        await talker.aclose()
        await endpoint.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
