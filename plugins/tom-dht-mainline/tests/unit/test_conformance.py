"""Discovery, publisher and the share of the socket keep their contracts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import check_datagram_protocol, check_discovery, check_publisher
from tom_connect.testing.plugincontext import LentContext, plugin_context
from tom_dht_mainline import DhtNode, plugin
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.core import MutableItem
from tom_dht_mainline.core.bencode import encode
from tom_dht_mainline.testing import Testnet


def context(*bootstrap: str) -> LentContext:
    return plugin_context(DhtConfig(bootstrap=bootstrap, ipv6=False, own_socket=True, host="127.0.0.1"), name="dht")


def unreachable() -> LentContext:
    return context()


async def test_discovery_keeps_its_contract(net: Testnet, client: Callable[..., DhtNode]) -> None:
    """In a DHT of ten nodes, everything that the core relies on holds."""
    async with client() as node:

        async def publish(record: SignedRecord) -> None:
            item = MutableItem(record.node_id.raw, encode(record.dns_packet), record.timestamp_us, record.signature)
            await node.put(item, wait_for="all")

        here = functools.partial(context, *net.bootstrap)
        await check_discovery(plugin.tom_discovery, publish=publish, context=here, unreachable=unreachable)


async def test_the_publisher_keeps_its_contract(net: Testnet, client: Callable[..., DhtNode]) -> None:
    """What it stores is found by another node, the newest record always."""
    async with client() as node:

        async def find(node_id: NodeId) -> SignedRecord | None:
            item: Any = await node.get(node_id.raw)
            return None if item is None else SignedRecord(node_id, item.signature, item.seq, item.value)

        here = functools.partial(context, *net.bootstrap)
        await check_publisher(plugin.tom_publisher, find=find, context=here, unreachable=unreachable)


async def test_the_share_of_the_socket_keeps_its_contract() -> None:
    """Queries, answers, garbage and floods of KRPC: nothing raises, blocks, fills memory or amplifies."""
    one, other, target = b"abcdefghij0123456789", b"mnopqrstuvwxyz123456", b"01234567890123456789"
    messages = [
        {b"t": b"aa", b"y": b"q", b"q": b"ping", b"a": {b"id": one}},
        {b"t": b"ab", b"y": b"q", b"q": b"find_node", b"a": {b"id": one, b"target": target}},
        {b"t": b"ac", b"y": b"q", b"q": b"get", b"a": {b"id": one, b"target": target}},
        {b"t": b"ad", b"y": b"q", b"q": b"get_peers", b"a": {b"id": one, b"info_hash": target}},
        {b"t": b"ae", b"y": b"r", b"r": {b"id": other, b"nodes": b""}},
        {b"t": b"af", b"y": b"e", b"e": [201, b"A Generic Error Ocurred"]},
    ]
    claimed = [encode(message) for message in messages]
    foreign = [b"\x40" + bytes(30), b"d1", b"discover", b"tom\x01" + bytes(30)]
    here = functools.partial(plugin_context, DhtConfig(bootstrap=(), server="on"), name="dht")
    await check_datagram_protocol(plugin.tom_datagram_protocol, claimed=claimed, foreign=foreign, context=here)
