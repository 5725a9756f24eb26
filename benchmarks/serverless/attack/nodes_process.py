"""The child that is an attacker's part of a DHT: nodes that answer all, and lie where they are told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

from benchmarks.dht.krpc import Address, Contact, Handler, Node, pack
from tests.interop.peers.lines import serve
from tests.netns.dht.elders import Elder


@attrs.frozen
class Conduct:
    """How a node lies.

    `seen_at`: where it says that it sees everybody; `drops`: it says that it stores, and does not; `false_peers`: how
    many addresses it invents for each list of peers; `items`: what it tells who asks for a target, in turn.
    """

    seen_at: Address | None = None
    drops: bool = False
    false_peers: int = 0
    items: Mapping[bytes, list[dict[bytes, Any]]] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Hostile(Elder):
    """A node of an attacker's."""

    conduct: Conduct = attrs.field(factory=Conduct)
    chooser: random.Random = attrs.field(factory=random.Random)
    queries: int = 0

    @property
    def handlers(self) -> dict[bytes, Handler]:
        """See `Node`; whether it knows BEP 44 depends on what it has to gain."""
        return MODERN if self.conduct.drops or self.conduct.items else OLD

    def sees(self, source: Address) -> Address:
        """See `Node`."""
        return self.conduct.seen_at or source

    def answer(self, data: bytes, source: Address) -> bytes | None:
        """See `Node`."""
        self.queries += 1
        return super().answer(data, source)

    def get_peers(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Name peers that nobody has announced."""
        reply = super().get_peers(arguments, source)
        if self.conduct.false_peers:
            reply[b"r"][b"values"] = [_invented(self.chooser) for _ in range(self.conduct.false_peers)]
        return reply

    def announce_peer(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Say that a peer is kept."""
        return self._reply({}) if self.conduct.drops else super().announce_peer(arguments, source)

    def put(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Say that an item is kept."""
        return self._reply({}) if self.conduct.drops else super().put(arguments, source)

    def get(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Answer with what was invented for the target, whatever the asker knows already."""
        reply = super().get(arguments, source)
        told = self.conduct.items.get(arguments[b"target"])
        if told:
            reply[b"r"] |= told[self.queries % len(told)]
        return reply


# `Handler` takes a Node: these are called with what they were looked up on, a Hostile.
OLD: Final[dict[bytes, Handler]] = {
    b"ping": Node.ping,
    b"find_node": Node.find_node,
    b"get_peers": cast(Handler, Hostile.get_peers),
    b"announce_peer": cast(Handler, Hostile.announce_peer),
}
MODERN: Final[dict[bytes, Handler]] = OLD | {b"get": cast(Handler, Hostile.get), b"put": cast(Handler, Hostile.put)}


def _invented(chooser: random.Random) -> bytes:
    host = f"{chooser.randrange(24, 200)}.{chooser.randrange(256)}.{chooser.randrange(256)}.{chooser.randrange(1, 255)}"
    return pack((host, chooser.randrange(1024, 65536)))


@attrs.define(eq=False)
class Gang:
    """All nodes of one attacker."""

    nodes: list[Hostile] = attrs.field(factory=list)

    async def open(
        self,
        nodes: list[list[Any]],
        others: list[list[Any]],
        seen_at: list[Any] | None = None,
        drops: bool = False,
        false_peers: int = 0,
        items: dict[str, list[dict[str, Any]]] | None = None,
    ) -> dict[str, Any]:
        """Open nodes ([id in hex, host, port]) that know each other and `others`, and lie as `Conduct` says."""
        conduct = Conduct(
            seen_at=(seen_at[0], seen_at[1]) if seen_at else None,
            drops=drops,
            false_peers=false_peers,
            items={bytes.fromhex(target): [_fields(each) for each in told] for target, told in (items or {}).items()},
        )
        known = [Contact(bytes.fromhex(node_id), (host, port)) for node_id, host, port in (*nodes, *others)]
        loop = asyncio.get_running_loop()
        for contact in known[: len(nodes)]:
            chooser = random.Random(contact.node_id)
            node = Hostile(contact, chooser.randbytes(16), conduct=conduct, chooser=chooser)
            node.table = [other for other in known if other is not contact]
            await loop.create_datagram_endpoint(lambda node=node: node, local_addr=contact.address)
            self.nodes.append(node)
        return {}

    async def asked(self) -> dict[str, Any]:
        """Say how many queries came."""
        return {"queries": sum(node.queries for node in self.nodes)}

    async def close(self) -> dict[str, Any]:
        """End all nodes."""
        for node in self.nodes:
            node.close()
        self.nodes.clear()
        return {}


def _fields(told: dict[str, Any]) -> dict[bytes, Any]:
    return {name.encode(): bytes.fromhex(value) if isinstance(value, str) else value for name, value in told.items()}


async def main() -> None:
    """Answer until standard input ends."""
    gang = Gang()
    await serve({"open": gang.open, "asked": gang.asked, "close": gang.close})
    await gang.close()


if __name__ == "__main__":
    asyncio.run(main())
