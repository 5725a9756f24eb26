"""DHT nodes as there were before BEP 44: they know pings, nodes and peers (BEP 5), and answer error 204 to the rest.

Their own code, not that of any program under test.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterable
from typing import Any, cast

import attrs

from benchmarks.dht.krpc import Address, Contact, Handler, K, Node, decode, encode, pack

#: As libtorrent: a list of peers in one reply, and for one infohash; seconds that a peer is kept.
MAX_PEERS_SENT = 100
MAX_PEERS = 500
PEER_LIFETIME = 45 * 60.0
#: Queries without an answer after which a contact is dropped; libtorrent's are more patient.
MAX_SILENCES = 2
ANSWER_TIMEOUT = 2.0
CHECK_INTERVAL = 5.0
MAX_CONTACTS = 400

_MASK = 0x030F3FFF


def crc32c(data: bytes) -> int:
    """CRC-32C of data, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def node_id(host: str, chooser: random.Random) -> bytes:
    """A 20-byte id that belongs to an IPv4 address (BEP 42)."""
    last = chooser.getrandbits(8)
    masked = int.from_bytes(bytes(map(int, host.split(".")))) & _MASK | (last & 7) << 29
    crc = crc32c(masked.to_bytes(4))
    return (
        crc.to_bytes(4)[:2] + bytes([crc >> 8 & 0xF8 | chooser.getrandbits(3)]) + chooser.randbytes(16) + bytes([last])
    )


@attrs.define(eq=False)
class Elder(Node, asyncio.DatagramProtocol):
    """One node on an address of its own. A silent one is dead to others, but stands in their tables."""

    silent: bool = False
    peers: dict[bytes, dict[bytes, float]] = attrs.field(factory=dict)
    transport: asyncio.DatagramTransport | None = None
    _asked: dict[bytes, asyncio.Future[bytes]] = attrs.field(factory=dict)
    _silences: dict[Address, int] = attrs.field(factory=dict)

    @classmethod
    async def open(cls, address: Address, chooser: random.Random) -> Elder:
        """Open a node. Raises OSError."""
        loop = asyncio.get_running_loop()
        elder = cls(Contact(node_id(address[0], chooser), address), chooser.randbytes(16))
        await loop.create_datagram_endpoint(lambda: elder, local_addr=address)
        return elder

    @property
    def handlers(self) -> dict[bytes, Handler]:
        """The queries that it knows, by name."""
        return HANDLERS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See DatagramProtocol."""
        self.transport = cast(asyncio.DatagramTransport, transport)

    def close(self) -> None:
        """Close the socket."""
        if self.transport is not None:
            self.transport.close()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer a query, and take note of a reply."""
        source: Address = (addr[0], addr[1])
        if self.silent or self.transport is None:
            return
        reply = self.answer(data, source)
        if reply is not None:
            self.transport.sendto(reply, source)
        self._learn(data, source)

    def _learn(self, data: bytes, source: Address) -> None:
        try:
            message = decode(data)
            if message[b"y"] == b"r":
                asked = self._asked.pop(message[b"t"], None)
                if asked is not None and not asked.done():
                    asked.set_result(message[b"r"][b"id"])
            elif message[b"y"] == b"q" and not message.get(b"ro") and len(self.table) < MAX_CONTACTS:
                contact = Contact(message[b"a"][b"id"], source)
                if len(contact.node_id) == 20 and all(known.address != source for known in self.table):
                    self.table.append(contact)
        except (ValueError, IndexError, KeyError, TypeError):
            return

    async def ping_address(self, address: Address, timeout: float = ANSWER_TIMEOUT) -> bytes | None:
        """The id of the node at an address, None if none answers."""
        assert self.transport is not None
        transaction = os.urandom(4)
        self._asked[transaction] = asyncio.get_running_loop().create_future()
        query = {b"t": transaction, b"y": b"q", b"q": b"ping", b"a": {b"id": self.contact.node_id}}
        self.transport.sendto(encode(query), address)
        try:
            return await asyncio.wait_for(self._asked[transaction], timeout)
        except TimeoutError:
            return None
        finally:
            self._asked.pop(transaction, None)

    async def look_after_table(self, chooser: random.Random) -> None:
        """Ask contacts in turn whether they are still there, and drop those that are not; never ends by itself."""
        while True:
            await asyncio.sleep(chooser.uniform(0.5, 1.5) * CHECK_INTERVAL)
            if not self.table or self.silent:
                continue
            contact = chooser.choice(self.table)
            if await self.ping_address(contact.address) is not None:
                self._silences.pop(contact.address, None)
                continue
            self._silences[contact.address] = self._silences.get(contact.address, 0) + 1
            if self._silences[contact.address] >= MAX_SILENCES:
                self.table = [known for known in self.table if known is not contact]

    def get_peers(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Answer with the peers that were announced, and the closest contacts."""
        target = arguments[b"info_hash"]
        reply = self._reply({b"nodes": self._nodes(target), b"token": self.token(source, target)})
        now = time.monotonic()
        known = [peer for peer, until in self.peers.get(target, {}).items() if until > now]
        if known:
            reply[b"r"][b"values"] = random.sample(known, min(len(known), MAX_PEERS_SENT))
        return reply

    def announce_peer(self, arguments: dict[bytes, Any], source: Address) -> dict[bytes, Any]:
        """Keep a peer."""
        target, port = arguments[b"info_hash"], arguments.get(b"port", 0)
        if arguments[b"token"] != self.token(source, target):
            return {b"y": b"e", b"e": [203, b"Bad token"]}
        if arguments.get(b"implied_port"):
            port = source[1]
        peers = self.peers.setdefault(target, {})
        peer = pack((source[0], port))
        if peer in peers or len(peers) < MAX_PEERS:
            peers[peer] = time.monotonic() + PEER_LIFETIME
        return self._reply({})


# `Handler` takes a Node: these are called with what they were looked up on, an Elder.
HANDLERS: dict[bytes, Handler] = {
    b"ping": Node.ping,
    b"find_node": Node.find_node,
    b"get_peers": cast(Handler, Elder.get_peers),
    b"announce_peer": cast(Handler, Elder.announce_peer),
}


def distance(one: bytes, other: bytes) -> int:
    """The XOR metric of Kademlia."""
    return int.from_bytes(one) ^ int.from_bytes(other)


def acquaintances(contact: Contact, everybody: Iterable[Contact], far: int, chooser: random.Random) -> list[Contact]:
    """Whom a node that has been there for long knows: its neighbours in the id space, and `far` others."""
    others = sorted(
        (other for other in everybody if other is not contact),
        key=lambda other: distance(other.node_id, contact.node_id),
    )
    return [*others[:K], *chooser.sample(others[K:], min(far, len(others) - K))] if len(others) > K else others
