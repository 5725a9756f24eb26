"""What must hold between a node of ours and a net of real nodes, whatever program they run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

from tests.interop.peers.dht import Address, DhtPeer
from tests.interop.peers.loopback import Block
from tests.interop.peers.process import REPOSITORY
from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_dht_mainline import CoreConfig, DhtNode, Mode, MutableItem, UdpTransport
from tom_dht_mainline.testing import Testnet

SALTS = (b"", b"tom-addr-v1")


def vectors() -> list[dict[str, Any]]:
    """Return the signed packets that programs that we did not write have made."""
    text = (REPOSITORY / "tests" / "vectors" / "pkarr.json").read_text()
    return list(json.loads(text)["vectors"])


@contextlib.asynccontextmanager
async def node_of_ours(net: DhtPeer, mode: Mode = Mode.SERVER) -> AsyncIterator[DhtNode]:
    """Join a net with a node of ours on an address of its own."""
    transport = UdpTransport((SocketAddr(*Block.pick().endpoint(0)),))
    config = CoreConfig(ipv6=False, mode=mode)
    async with DhtNode(transport, config=config, bootstrap=net.bootstrap) as node:
        assert await node.bootstrap() >= 8
        yield node
        assert node.stats().failures == 0


async def check_ours_put_they_get(net: DhtPeer) -> None:
    """What our node puts, their nodes find: mutable, with and without salt, a second version, and immutable."""
    async with node_of_ours(net) as node:
        key = SecretKey.generate()
        for salt in SALTS:
            for seq in (1_700_000_000_000_001, 1_700_000_000_000_002):
                value = os.urandom(996)
                put = await node.put_mutable(key, value, seq=seq, salt=salt, wait_for="all")
                assert put.acknowledged >= 6
                got = await net.get_mutable(bytes(key.node_id), salt=salt, node=5)
                assert (got.value, got.seq) == (value, seq)
        value = os.urandom(996)
        put = await node.put_immutable(value, wait_for="all")
        assert put.target == hashlib.sha1(b"996:" + value).digest()
        assert await net.get_immutable(put.target, node=5) == value


async def check_they_put_ours_gets(net: DhtPeer) -> None:
    """What their nodes put, our node finds: mutable, with and without salt, a second version, and immutable."""
    async with node_of_ours(net) as node:
        key = SecretKey.generate()
        for salt in SALTS:
            for seq in (1, 2):
                value = os.urandom(996)
                put = await net.put_mutable(key.seed(), value, salt=salt, seq=seq)
                item = await node.get(bytes(key.node_id), salt)
                assert item is not None
                assert (item.value, item.seq) == (value, put.seq)
        value = os.urandom(996)
        put = await net.put_immutable(value)
        assert put.target is not None
        found = await node.get_immutable(put.target)
        assert found is not None and found.value == value
        assert await node.get(bytes(SecretKey.generate().node_id)) is None


async def check_records(net: DhtPeer, records: list[dict[str, Any]]) -> None:
    """Signed packets made elsewhere pass through their nodes unchanged, put by us under the target that they name."""
    async with node_of_ours(net) as node, node_of_ours(net) as other:
        for record in records:
            item = signed_item(record)
            assert item.target.hex() == record["dht_target"]
            await node.put(item, wait_for="all")
            got = await net.get_mutable(item.public_key, node=3)
            assert (got.value, got.seq, got.signature) == (item.value, item.seq, item.signature)
            assert await other.get(item.public_key) == item


async def check_ours_serves(net: DhtPeer) -> None:
    """Their nodes learn of ours, store on it, and ask it."""
    async with node_of_ours(net) as node:
        key = near_key(node.node_id())
        async with asyncio.timeout(30):
            seq = 0
            while not node.stats().queries_in.get("put"):
                # Until their tables have ours it gets nothing; each put looks again.
                await net.add_node(address_of(node))
                seq += 1
                put = await net.put_mutable(key.seed(), b"for you", seq=seq)
        before = node.stats().queries_in.get("get", 0)
        got = await net.get_mutable(bytes(key.node_id), node=9)
        assert (got.value, got.seq) == (b"for you", put.seq)
        assert node.stats().queries_in.get("get", 0) > before


async def check_net_of_ours(client: DhtPeer) -> None:
    """In a DHT of nothing but our nodes, two of their clients exchange every kind of item."""
    block = Block.pick()
    async with Testnet(12) as net:
        known = [(addr.host, addr.port) for node in net.nodes for addr in node.local_addrs]
        writer = await client.open(block.endpoint(0), known[:3], known)
        reader = await client.open(block.endpoint(1), known[:3], known)
        try:
            for salt in SALTS:
                key, value = SecretKey.generate(), os.urandom(900)
                put = await client.put_mutable(key.seed(), value, salt=salt, node=writer)
                assert put.stored >= 8
                got = await client.get_mutable(bytes(key.node_id), salt=salt, node=reader)
                assert (got.value, got.seq) == (value, put.seq)
            value = os.urandom(900)
            stored = await client.put_immutable(value, node=writer)
            assert stored.target is not None and stored.stored >= 8
            assert await client.get_immutable(stored.target, node=reader) == value
        finally:
            await client.close_node(writer)
            await client.close_node(reader)
        assert sum(node.stats().failures for node in net.nodes) == 0


def signed_item(record: dict[str, Any]) -> MutableItem:
    """Return the mutable item of a signed packet."""
    key, packet, signature = (bytes.fromhex(record[name]) for name in ("public_key", "dns_packet", "signature"))
    return MutableItem.create(key, packet, record["timestamp"], signature)


def address_of(node: DhtNode) -> Address:
    """Return where a node listens."""
    host, port = node.local_addrs[0]
    return host, port


def near_key(node_id: bytes) -> SecretKey:
    """Return a key whose item lands next to a node: 8 bits of its target are those of the node's id."""
    while True:
        key = SecretKey.generate()
        if hashlib.sha1(bytes(key.node_id)).digest()[0] == node_id[0]:
            return key
