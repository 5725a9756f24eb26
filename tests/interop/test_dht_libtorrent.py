"""Our DHT node among libtorrent's, in both directions."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.interop import dht_both_ways as both_ways
from tests.interop.conftest import running
from tests.interop.peers import LibtorrentNet
from tom_connect.keys import SecretKey


@pytest.fixture(scope="module")
def libtorrent_clients() -> Iterator[LibtorrentNet]:
    """A libtorrent process without nodes, which opens clients when told to."""
    yield from running(lambda: LibtorrentNet.start(0))


@pytest.fixture
def guarded_libtorrent_net() -> Iterator[LibtorrentNet]:
    """Libtorrent nodes as shipped, each in a prefix of its own."""
    yield from running(lambda: LibtorrentNet.start(24, protections=True))


async def test_libtorrent_gets_what_our_node_puts(libtorrent_net: LibtorrentNet) -> None:
    """Items of ours, mutable with and without salt and immutable, are found by libtorrent nodes."""
    await both_ways.check_ours_put_they_get(libtorrent_net)


async def test_our_node_gets_what_libtorrent_puts(libtorrent_net: LibtorrentNet) -> None:
    """Items of libtorrent's, mutable with and without salt and immutable, are found by our node."""
    await both_ways.check_they_put_ours_gets(libtorrent_net)


async def test_signed_packets_pass_through_libtorrent(libtorrent_net: LibtorrentNet) -> None:
    """Address records made by other programs come back from libtorrent's nodes byte for byte."""
    await both_ways.check_records(libtorrent_net, both_ways.vectors()[:3])


async def test_our_node_serves_libtorrent_nodes(libtorrent_net: LibtorrentNet) -> None:
    """libtorrent's nodes take our node into their tables, store on it and ask it."""
    await both_ways.check_ours_serves(libtorrent_net)


async def test_our_node_among_guarded_libtorrent_nodes(guarded_libtorrent_net: LibtorrentNet) -> None:
    """Nodes with all their protections on, 5 packets a second among them, store what we put and find it for us."""
    async with both_ways.node_of_ours(guarded_libtorrent_net) as node:
        for number in range(6):
            key, value = SecretKey.generate(), os.urandom(900)
            put = await node.put_mutable(key, value, wait_for="all")
            assert put.acknowledged >= 6
            got = await guarded_libtorrent_net.get_mutable(bytes(key.node_id), node=number)
            assert got.value == value
            item = await node.get(bytes(key.node_id))
            assert item is not None and item.value == value


async def test_libtorrent_clients_in_a_dht_of_ours(libtorrent_clients: LibtorrentNet) -> None:
    """Two libtorrent clients exchange items through a DHT that has our nodes only."""
    await both_ways.check_net_of_ours(libtorrent_clients)
