"""The child that is one end of a live stream, with a node of ours."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from tests.interop.peers.lines import serve
from tests.netns.records import Talk
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr, NodeId, RelayUrl

ALPN = "talk/1"


class Talker(Talk):
    """Talks over a connection of ours."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.connection: Connection
        self.events: list[tuple[float, str]] = []

    async def accept(self) -> Mapping[str, Any]:
        """Take the other's connection and stream, and begin to talk."""
        self.connection = await (await anext(self.endpoint.accept())).accept()
        self._talk(await self.connection.accept_bi())
        return {}

    async def dial(self, node_id: str, relay: str) -> Mapping[str, Any]:
        """Connect, open the stream and begin to talk."""
        where = NodeAddr(NodeId.parse(node_id), [RelayUrl.parse(relay)])
        self.connection = await self.endpoint.connect(where, ALPN)
        self._talk(await self.connection.open_bi())
        return {}

    def _talk(self, stream: Any) -> None:
        works = (self._send(stream), self._receive(stream), self._listen())
        self._tasks = [asyncio.create_task(work) for work in works]

    async def _send(self, stream: Any) -> None:
        async def write(data: bytes) -> None:
            stream.write(data)

        await self.records.send(write)
        stream.finish()

    async def _receive(self, stream: Any) -> None:
        async for data in stream:
            self.records.received(data)

    async def _listen(self) -> None:
        with self.connection.path_events() as events:
            async for event in events:
                fields = attrs.asdict(event, recurse=False)
                words = [f"{name}={value}" for name, value in fields.items() if name not in ("at", "node_id")]
                self.events.append((event.at, f"{type(event).__name__} {' '.join(words)}"))

    async def path_events(self, since: float) -> Mapping[str, Any]:
        """What happened to paths, as times and words."""
        return {"events": [event for event in self.events if event[0] >= since]}

    async def path(self) -> Mapping[str, Any]:
        """The path in use: `direct`, `relay`, or none."""
        active = next((path for path in self.connection.paths() if path.active), None)
        if active is None:
            return {"kind": "none", "where": ""}
        return {"kind": "relay" if isinstance(active.addr, RelayUrl) else "direct", "where": str(active.addr)}

    async def external(self, addr: str) -> Mapping[str, Any]:
        """Nothing: a node of ours learns its address by itself."""
        return {}


async def main(relay: str, port: str, _external: str, level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s.%(msecs)03d %(name)s %(message)s", datefmt="%M:%S")
    bind = (f"0.0.0.0:{port}", "[::]:0")
    config = EndpointConfig(alpns=(ALPN,), bind=bind, relay=(relay,), plugins=("relay",), persist=False)
    async with Endpoint.bind(config) as endpoint:
        async with asyncio.timeout(20):
            async for addr in endpoint.watch_addr():
                if addr.relay_urls:
                    break
        talker = Talker(endpoint)
        names = ("accept", "dial", "path", "path_events", "external", "stop", "finished")
        handlers = {name: getattr(talker, name) for name in names} | {"state": talker.records.state}
        try:
            await serve(handlers, node_id=str(endpoint.node_id))
        finally:
            await talker.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
