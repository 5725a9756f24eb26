"""The child that runs DHT clients of ours; it takes the commands that tests/interop/peers/dht.py sends."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import attrs

from tests.interop.peers.lines import serve
from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_dht_mainline import CoreConfig, DhtNode, MutableItem, UdpTransport


def make(host: str, port: int, bootstrap: list[list[Any]]) -> DhtNode:
    """Return a node as shipped, IPv4 only since the labs have no other."""
    nodes = [f"{name}:{number}" for name, number in bootstrap]
    return DhtNode(UdpTransport((SocketAddr(host, port),)), config=CoreConfig(ipv6=False), bootstrap=nodes)


def queries_of(node: DhtNode) -> int:
    """Return how many queries a node has sent, retransmissions included."""
    return sum(node.stats().queries_out.values())


@attrs.define(eq=False)
class Clients:
    """The nodes of this process by number."""

    nodes: dict[int, DhtNode] = attrs.field(factory=dict)

    async def open(self, host: str, port: int, bootstrap: list[list[Any]], know: list[list[Any]]) -> dict[str, Any]:
        """Open a node and wait until it has joined."""
        node = make(host, port, bootstrap + know)
        await node.start()
        await node.bootstrap()
        number = len(self.nodes)
        self.nodes[number] = node
        return {"node": number}

    async def warm(self, node: int, lookups: int) -> dict[str, Any]:
        """Let a node look about."""
        await asyncio.gather(*(self.nodes[node].get(SecretKey.generate().node_id.raw) for _ in range(lookups)))
        return {}

    async def queries(self, node: int) -> dict[str, Any]:
        """Return how many queries a node has sent."""
        return {"sent": queries_of(self.nodes[node])}

    async def put_mutable(self, node: int, seed: str, value: str, salt: str = "") -> dict[str, Any]:
        """Put a mutable item; it ends, as for any user, when a quorum has it."""
        own = self.nodes[node]
        before, start = queries_of(own), time.monotonic()
        put = await own.put_mutable(SecretKey(bytes.fromhex(seed)), bytes.fromhex(value), salt=bytes.fromhex(salt))
        ms = (time.monotonic() - start) * 1000
        return {"stored": put.acknowledged, "ms": ms, "packets": queries_of(own) - before, "seq": put.seq}

    async def get_mutable(self, node: int, key: str, salt: str = "") -> dict[str, Any]:
        """Get a mutable item to the lookup's end."""
        own = self.nodes[node]
        before, start = queries_of(own), time.monotonic()
        best: MutableItem | None = None
        first: float | None = None
        async for item in own.get_values(bytes.fromhex(key), bytes.fromhex(salt)):
            best = item
            first = (time.monotonic() - start) * 1000 if first is None else first
        return reply(best, first, (time.monotonic() - start) * 1000, queries_of(own) - before)

    async def cold_get(
        self, host: str, port: int, bootstrap: list[list[Any]], key: str, salt: str = ""
    ) -> dict[str, Any]:
        """Open a node, get at once, close it at the first value: the time counts from before the node exists."""
        start = time.monotonic()
        async with make(host, port, bootstrap) as own:
            values = own.get_values(bytes.fromhex(key), bytes.fromhex(salt))
            item = await anext(values, None)
            ms = (time.monotonic() - start) * 1000
            await values.aclose()
            return reply(item, ms if item else None, ms, queries_of(own))

    async def close(self, node: int) -> dict[str, Any]:
        """Close a node."""
        await self.nodes.pop(node).aclose()
        return {}


def reply(item: MutableItem | None, first: float | None, end: float, packets: int) -> dict[str, Any]:
    """Return a get's outcome as the protocol has it."""
    value = None if item is None else bytes(item.value) if isinstance(item.value, bytes) else None
    return {"value": None if value is None else value.hex(), "first_ms": first, "end_ms": end, "packets": packets}


async def main() -> None:
    """Answer until stdin ends."""
    clients = Clients()
    names = ("open", "warm", "queries", "put_mutable", "get_mutable", "cold_get", "close")
    try:
        await serve({name: getattr(clients, name) for name in names}, pid=os.getpid())
    finally:
        await asyncio.gather(*(node.aclose() for node in clients.nodes.values()))


if __name__ == "__main__":
    asyncio.run(main())
