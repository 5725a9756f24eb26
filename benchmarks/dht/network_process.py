"""The child that is a simulated DHT: many nodes with an address each, behind round-trip times and losses.

Round-trip times are drawn once for each node, log-normal; each datagram is lost on its own, queries and replies alike;
dead nodes stand in the routing tables of others and never answer. All is drawn from one seed.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import hashlib
import json
import random
import sys
from typing import Any, cast

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.dht.krpc import Address, Contact, Item, K, Node, encode
from tests.interop.peers.lines import serve
from tests.interop.peers.loopback import Block

#: Spread of the round-trip times: with 0.6, nine of ten lie between 0.37 and 2.7 times the median.
SIGMA = 0.6


@attrs.define(eq=False)
class Link(asyncio.DatagramProtocol):
    """A node's socket, with its delay."""

    network: Network
    node: Node
    rtt: float
    alive: bool
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See DatagramProtocol."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer after the round-trip time, unless the query or the reply gets lost."""
        source: Address = (addr[0], addr[1])
        self.network.sent[source] += 1
        if not self.alive or self.network.loses():
            return
        reply = self.node.answer(data, source)
        if reply is None or self.network.loses():
            return
        self.network.loop.call_later(self.rtt, self._send, reply, source)

    def _send(self, reply: bytes, source: Address) -> None:
        if self.transport is not None:
            self.transport.sendto(reply, source)


@attrs.define(eq=False)
class Network:
    """All the nodes."""

    loop: asyncio.AbstractEventLoop
    random: random.Random
    loss: float
    links: list[Link] = attrs.field(factory=list)
    sent: collections.Counter[Address] = attrs.field(factory=collections.Counter)

    def loses(self) -> bool:
        """Whether the next datagram gets lost."""
        return self.random.random() < self.loss

    async def open(self, count: int, dead: float, median_ms: float) -> None:
        """Make the nodes, fill their tables and bind their sockets."""
        block = Block.pick()
        draw = self.random
        contacts = [Contact(draw.randbytes(20), block.endpoint(number)) for number in range(count)]
        dying = set(draw.sample(range(3, count), round(count * dead)))
        for number, contact in enumerate(contacts):
            node = Node(contact, draw.randbytes(16), table_of(contact, contacts, draw))
            rtt = draw.lognormvariate(0.0, SIGMA) * median_ms / 1000
            link = Link(self, node, rtt, number not in dying)
            await self.loop.create_datagram_endpoint(functools.partial(_itself, link), local_addr=contact.address)
            self.links.append(link)

    def nearest(self, target: bytes) -> list[Link]:
        """Return the live nodes, the nearest to a target first."""
        wanted = int.from_bytes(target)
        alive = [link for link in self.links if link.alive]
        return sorted(alive, key=lambda link: int.from_bytes(link.node.contact.node_id) ^ wanted)

    async def place(self, seed: str, value: str, seq: int = 1) -> dict[str, Any]:
        """Store a mutable item on the 8 live nodes nearest to its target, as a good put would."""
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
        public, body = key.public_key().public_bytes_raw(), bytes.fromhex(value)
        item = Item(body, public, key.sign(b"3:seqi%de1:v" % seq + encode(body)), seq)
        target = hashlib.sha1(public).digest()
        for link in self.nearest(target)[:K]:
            link.node.items[target] = item
        return {"key": public.hex()}

    async def holders(self, key: str) -> dict[str, Any]:
        """Say how many of the 8 live nodes nearest to a key's target hold its item, and how many hold it at all."""
        target = hashlib.sha1(bytes.fromhex(key)).digest()
        nearest = self.nearest(target)
        holding = [target in link.node.items for link in nearest]
        return {"near": sum(holding[:K]), "all": sum(holding)}

    async def packets(self, host: str, port: int) -> dict[str, Any]:
        """Say how many datagrams have come from an address."""
        return {"sent": self.sent[(host, port)]}


def _itself(link: Link) -> Link:
    return link


def table_of(own: Contact, contacts: list[Contact], draw: random.Random) -> list[Contact]:
    """Return 8 contacts at random for each k-bucket of a node, dead ones among them as in life."""
    buckets: dict[int, list[Contact]] = {}
    own_id = int.from_bytes(own.node_id)
    for contact in contacts:
        if contact is not own:
            buckets.setdefault((int.from_bytes(contact.node_id) ^ own_id).bit_length(), []).append(contact)
    return [contact for bucket in buckets.values() for contact in draw.sample(bucket, min(K, len(bucket)))]


async def main(options: dict[str, Any]) -> None:
    """Run the network until stdin ends."""
    network = Network(asyncio.get_running_loop(), random.Random(options["seed"]), options["loss"])
    await network.open(options["nodes"], options["dead"], options["rtt_ms"])
    names = ("place", "holders", "packets")
    addresses = [link.node.contact.address for link in network.links[:3]]
    await serve({name: getattr(network, name) for name in names}, addresses=addresses)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
