"""The DHT clients that are measured, each in a process of its own, and the networks that they are measured in."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from typing import Any, Protocol

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.interop.peers import BittorrentDhtNet, LibtorrentNet, PeerMissing
from tests.interop.peers.dht import Address, DhtPeer
from tests.interop.peers.loopback import Block
from tests.interop.peers.process import LineProcess, python_module


class OurDht(DhtPeer):
    """DHT clients of ours."""

    @classmethod
    def start(cls) -> OurDht:
        """Start the process; raise PeerMissing without the plugin."""
        if importlib.util.find_spec("tom_dht_mainline") is None:
            raise PeerMissing("tom-dht-mainline is not installed")
        return cls(LineProcess.start(python_module("benchmarks.dht.ours_process")), [])


@attrs.frozen
class Entry:
    """A contender: its name for --without, its name in tables, and how to start its process."""

    name: str
    title: str
    start: Callable[[], DhtPeer]


OURS = Entry("tom-connect", "tom-dht-mainline", OurDht.start)
LIBTORRENT = Entry("libtorrent", "libtorrent", lambda: LibtorrentNet.start(0))
BITTORRENT_DHT = Entry("bittorrent-dht", "bittorrent-dht", lambda: BittorrentDhtNet.start(0))
CONTENDERS = (LIBTORRENT, BITTORRENT_DHT, OURS)


class Network(Protocol):
    """A DHT that clients are let into."""

    #: Seconds after an operation until what it sends behind its end has been sent.
    settle: float

    @property
    def entrances(self) -> list[Address]:
        """Nodes to start from."""
        ...

    async def place(self, value: bytes) -> bytes:
        """Have a mutable item stored where a good put stores it, and return its key."""
        ...

    async def copies(self, key: bytes) -> float:
        """Say how well a key's item is stored now."""
        ...

    async def packets(self, client: DhtPeer, node: int, address: Address) -> int:
        """Return how many queries a client has sent so far."""
        ...

    def close(self) -> None:
        """End the network."""
        ...


@attrs.define(eq=False)
class Lab:
    """A network of libtorrent nodes without delays."""

    net: LibtorrentNet
    settle: float = 0.3

    @classmethod
    def start(cls, nodes: int) -> Lab:
        """Start the nodes."""
        return cls(LibtorrentNet.start(nodes))

    @property
    def entrances(self) -> list[Address]:
        """Nodes to start from."""
        return self.net.addresses[:3]

    async def place(self, value: bytes) -> bytes:
        """Have a node of the lab put an item."""
        seed = os.urandom(32)
        await self.net.put_mutable(seed, value, node=len(self.net.addresses) // 2)
        return public_key(seed)

    async def copies(self, key: bytes) -> float:
        """Say whether a node of the lab finds the item."""
        return float((await self.net.get_mutable(key, node=1)).value is not None)

    async def packets(self, client: DhtPeer, node: int, address: Address) -> int:
        """Return how many queries the client itself has counted."""
        return await client.queries(node)

    def close(self) -> None:
        """End the network."""
        self.net.close()


@attrs.define(eq=False)
class Simulation:
    """Simulated nodes with delays, losses and dead ones among them."""

    process: LineProcess
    entrances: list[Address]
    settle: float = 3.0

    @classmethod
    def start(cls, nodes: int, *, rtt_ms: float, loss: float, dead: float, seed: int = 1) -> Simulation:
        """Start the nodes."""
        options = json.dumps({"nodes": nodes, "rtt_ms": rtt_ms, "loss": loss, "dead": dead, "seed": seed})
        process = LineProcess.start(python_module("benchmarks.dht.network_process", options))
        return cls(process, [(host, port) for host, port in process.ready["addresses"]])

    async def place(self, value: bytes) -> bytes:
        """Store an item on the 8 live nodes nearest to it."""
        reply = await self.process.call("place", seed=os.urandom(32).hex(), value=value.hex())
        return bytes.fromhex(reply["key"])

    async def holders(self, key: bytes) -> dict[str, Any]:
        """Say how many of the 8 nearest live nodes hold an item, `near`, and how many nodes in all, `all`."""
        return await self.process.call("holders", key=key.hex())

    async def copies(self, key: bytes) -> float:
        """Say how many of the 8 nearest live nodes hold an item."""
        return float((await self.holders(key))["near"])

    async def packets(self, client: DhtPeer, node: int, address: Address) -> int:
        """Return how many datagrams have come from the client."""
        return int((await self.process.call("packets", host=address[0], port=address[1]))["sent"])

    def close(self) -> None:
        """End the network."""
        self.process.close()


def public_key(seed: bytes) -> bytes:
    """Return the Ed25519 public key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def client_addresses() -> Callable[[], Address]:
    """Return a function that gives a fresh address at each call."""
    block = Block.pick()
    numbers = iter(range(60_000))
    return lambda: block.endpoint(next(numbers))
