"""Our DHT node among libtorrent's, in both directions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop import dht_both_ways as both_ways
from tests.interop.conftest import running
from tests.interop.peers import LibtorrentNet


@pytest.fixture(scope="module")
def libtorrent_clients() -> Iterator[LibtorrentNet]:
    """A libtorrent process without nodes, which opens clients when told to."""
    yield from running(lambda: LibtorrentNet.start(0))


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


async def test_libtorrent_clients_in_a_dht_of_ours(libtorrent_clients: LibtorrentNet) -> None:
    """Two libtorrent clients exchange items through a DHT that has our nodes only."""
    await both_ways.check_net_of_ours(libtorrent_clients)
