"""The peers by themselves: if these fail, no interop test says anything about us."""

from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.interop.peers import BittorrentDhtNet, IrohPeer, LibtorrentNet, LineProcess, PeerError
from tests.interop.peers.dht import DhtPeer
from tests.interop.peers.process import python_module


def public_key(seed: bytes) -> bytes:
    """Return the Ed25519 public key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


async def check_items(net: DhtPeer) -> None:
    """Put and get every kind of item inside one net."""
    for salt in (b"", b"tom-addr-v1"):
        seed, value = os.urandom(32), os.urandom(300)
        put = await net.put_mutable(seed, value, salt=salt, seq=1_700_000_000_000_001)
        assert put.stored >= 8
        got = await net.get_mutable(public_key(seed), salt=salt, node=7)
        assert (got.value, got.seq) == (value, put.seq)
        assert got.first_ms is not None and 0 < got.first_ms <= got.end_ms
        assert (await net.get_mutable(public_key(seed), salt=b"other", node=7)).value is None
    value = os.urandom(300)
    put = await net.put_immutable(value)
    assert put.target == hashlib.sha1(b"300:" + value).digest()
    assert await net.get_immutable(put.target, node=9) == value
    assert await net.get_immutable(os.urandom(20), node=9) is None


async def test_libtorrent_nodes_find_each_others_items(libtorrent_net: LibtorrentNet) -> None:
    """An item put at one libtorrent node is found from another, and nothing is found where nothing was put."""
    await check_items(libtorrent_net)


async def test_bittorrent_dht_nodes_find_each_others_items(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """An item put at one bittorrent-dht node is found from another, and nothing is found where nothing was put."""
    await check_items(bittorrent_dht_net)


async def test_bittorrent_dht_keeps_cas_and_seq(bittorrent_dht_net: BittorrentDhtNet) -> None:
    """A put with an old seq or the wrong CAS is refused by the nodes: they do check."""
    seed = os.urandom(32)
    await bittorrent_dht_net.put_mutable(seed, b"new", seq=5)
    with pytest.raises(PeerError, match="302"):
        await bittorrent_dht_net.put_mutable(seed, b"old", seq=4)
    with pytest.raises(PeerError, match="301"):
        await bittorrent_dht_net.put_mutable(seed, b"newer", seq=6, cas=3)


async def test_iroh_peers_talk(iroh_peer: IrohPeer, second_iroh_peer: IrohPeer) -> None:
    """One iroh endpoint dials another by address: streams and datagrams come back, and each sees the other's key."""
    dialed = await second_iroh_peer.dial(iroh_peer.node_id, iroh_peer.addresses[:1])
    assert (dialed.remote, dialed.alpn) == (iroh_peer.node_id, "echo/1")
    data = os.urandom(200_000)
    assert await second_iroh_peer.stream(dialed, data) == data
    assert await second_iroh_peer.uni(dialed, data) == hashlib.sha256(data).digest()
    assert await second_iroh_peer.datagram(dialed, data[:1000]) == data[:1000]
    assert second_iroh_peer.node_id == public_key(bytes(31) + b"\x01")
    assert second_iroh_peer.node_id.hex() in [record["remote"] for record in await iroh_peer.accepted()]
    await second_iroh_peer.hang_up(dialed, 7, "bye")
    assert await second_iroh_peer.closed(dialed) == "closed"


async def test_a_peer_that_ends_is_reported() -> None:
    """A child that fails at its start gives PeerError with what it said on stderr."""
    with pytest.raises(PeerError, match="JSONDecodeError"):
        LineProcess.start(python_module("tests.interop.peers.iroh_process", "no JSON"))
