"""The place of a sealed call, whose key anybody has who reads the mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tom_dht_mainline.core import MutableItem
from tom_dht_mainline.core.items import MAX_SEQ
from tom_dht_mainline.core.rendezvous.call import Nonce, item_of, open_call, seal_call
from tom_dht_mainline.node import DhtNode
from tom_dht_mainline.testing import Testnet

OURS = X25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = OURS.public_key().public_bytes_raw()
NONCE = Nonce.of(KEY, "198.51.100.7", 31337)
PLACE = NONCE.signing_key(KEY)
PUBLIC = PLACE.public_key().public_bytes_raw()
CALL = item_of(NONCE, KEY, seal_call(NONCE, KEY, b"hello", X25519PrivateKey.generate()))
RUBBISH = MutableItem.sign(PLACE, b"rubbish", MAX_SEQ)


def opens(item: MutableItem) -> bool:
    """Whether an item is the call."""
    return item.value == CALL.value


def held(net: Testnet) -> list[MutableItem]:
    """What the nodes of a DHT hold in the place."""
    cores = [node._core for node in net.nodes]
    stored = [core._server.items.get(CALL.target, asyncio.get_running_loop().time()) for core in cores if core]
    return [item for item in stored if isinstance(item, MutableItem)]


def hold(node: DhtNode, item: MutableItem) -> None:
    """Have a node of a DHT hold an item, as if it had been put."""
    assert node._core is not None
    now = asyncio.get_running_loop().time()
    assert node._core._server.items.put(item.target, item, "127.0.0.1", now, unlimited=True)


async def test_who_reads_the_mailbox_can_not_overwrite_a_call(net: Testnet, client: Callable[..., DhtNode]) -> None:
    """Every node that has taken a call keeps it, whatever is put under its key afterwards, and the callee reads it."""
    async with client() as caller, client() as other, client() as callee, asyncio.timeout(60):
        await caller.put(CALL, wait_for="all")
        taken = len(held(net))
        # Two of the ten are further away than those that the caller has put it on.
        await other.put(RUBBISH, wait_for="all")
        assert [item.value for item in held(net)].count(CALL.value) == taken >= 8
        found = [item async for item in callee.get_values(PUBLIC, wanted=opens)]
        assert [open_call(NONCE, OURS, item.value) for item in found] == [b"hello"]


async def test_rubbish_in_the_place_hides_no_call(net: Testnet, client: Callable[..., DhtNode]) -> None:
    """Where most nodes hold something else of the same sequence number, the call is found on the two that hold it."""
    for node in net.nodes[2:]:
        hold(node, RUBBISH)
    for node in net.nodes[:2]:
        hold(node, CALL)
    async with client() as callee, asyncio.timeout(60):
        found = [item async for item in callee.get_values(PUBLIC, wanted=opens)]
        assert [open_call(NONCE, OURS, item.value) for item in found] == [b"hello"]
