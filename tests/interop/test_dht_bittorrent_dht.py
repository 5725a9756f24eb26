"""Our DHT node among bittorrent-dht's, in both directions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop import dht_both_ways as both_ways
from tests.interop.conftest import running
from tests.interop.peers import BittorrentDhtNet
from tom_connect.keys import SecretKey
from tom_dht_mainline import CasMismatchError, SupersededError


@pytest.fixture(scope="module")
def bittorrent_dht_clients() -> Iterator[BittorrentDhtNet]:
    """A bittorrent-dht process without nodes, which opens clients when told to."""
    yield from running(lambda: BittorrentDhtNet.start(0))


async def test_bittorrent_dht_gets_what_our_node_puts(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """Items of ours, mutable with and without salt and immutable, are found by bittorrent-dht nodes."""
    await both_ways.check_ours_put_they_get(bittorrent_dht_net)


async def test_our_node_gets_what_bittorrent_dht_puts(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """Items of bittorrent-dht's, mutable with and without salt and immutable, are found by our node."""
    await both_ways.check_they_put_ours_gets(bittorrent_dht_net)


async def test_signed_packets_pass_through_bittorrent_dht(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """Address records made by other programs come back from bittorrent-dht's nodes byte for byte."""
    await both_ways.check_records(bittorrent_dht_net, both_ways.vectors()[1:3])


async def test_a_record_that_bittorrent_dht_signs_is_ours_byte_for_byte(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """bittorrent-dht signs a record with the vector's seed, and our node finds exactly the vector."""
    vector = both_ways.vectors()[3]
    item = both_ways.signed_item(vector)
    put = await bittorrent_dht_net.put_mutable(
        bytes.fromhex(vector["seed"]), bytes.fromhex(vector["dns_packet"]), seq=vector["timestamp"]
    )
    assert put.stored >= 8
    async with both_ways.node_of_ours(bittorrent_dht_net) as node:
        assert await node.get(item.public_key) == item


async def test_putting_the_same_again_is_no_failure(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """bittorrent-dht answers 302 to an unchanged item; our node takes that for stored."""
    async with both_ways.node_of_ours(bittorrent_dht_net) as node:
        key = SecretKey.generate()
        for _ in range(2):
            put = await node.put_mutable(key, b"unchanged", seq=5, wait_for="all")
            assert put.acknowledged >= 6


async def test_old_items_and_wrong_cas_are_told_apart(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """What bittorrent-dht's nodes refuse for its seq or CAS raises the error that says so."""
    async with both_ways.node_of_ours(bittorrent_dht_net) as node:
        key = SecretKey.generate()
        await bittorrent_dht_net.put_mutable(key.seed(), b"newer", seq=5)
        with pytest.raises(SupersededError):
            await node.put_mutable(key, b"older", seq=4, wait_for="all")
        with pytest.raises(CasMismatchError):
            await node.put_mutable(key, b"newest", seq=6, cas=3, wait_for="all")


async def test_an_old_item_is_not_spread_by_the_node_that_put_the_new_one(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """Nodes that refuse our old item are not replaced by ones that know no better, and the new one is still found."""
    async with both_ways.node_of_ours(bittorrent_dht_net) as node:
        key = SecretKey.generate()
        await node.put_mutable(key, b"newer", seq=5, wait_for="all")
        with pytest.raises(SupersededError):
            await node.put_mutable(key, b"older", seq=4, wait_for="all")
        item = await node.get(bytes(key.node_id))
        assert item is not None and item.value == b"newer"


async def test_our_node_serves_bittorrent_dht_nodes(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """bittorrent-dht's nodes take our node into their tables, store on it and ask it."""
    await both_ways.check_ours_serves(bittorrent_dht_net)


async def test_bittorrent_dht_clients_in_a_dht_of_ours(bittorrent_dht_clients: BittorrentDhtNet) -> None:
    """Two bittorrent-dht clients exchange items through a DHT that has our nodes only."""
    await both_ways.check_net_of_ours(bittorrent_dht_clients)
