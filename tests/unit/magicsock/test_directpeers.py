"""Which addresses plugins are told of nodes that we are connected to."""

from __future__ import annotations

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.holepunch.events import PathForgotten, PathLost, PathProven, PathSelected
from tom_connect.holepunch.path import Path, RelayPath, ViaSocket
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock.directpeers import MAX_PEERS, DirectPeers


def node(number: int) -> NodeId:
    return SecretKey(number.to_bytes(32)).node_id


def addr(number: int) -> SocketAddr:
    return SocketAddr("192.0.2.1", number)


def selected(number: int, path: Path) -> PathSelected:
    return PathSelected(node(number), path, 0.0, None, "test")


def test_addresses_in_use_are_told() -> None:
    """A direct path in use counts, a proven one, one at a relay and one by a further socket don't; lost ones go."""
    peers = DirectPeers()
    relayed = RelayPath(RelayUrl.parse("https://relay.example/"), node(3))
    peers.note(PathProven(node(1), addr(1), 0.0, "disco", 0.1))
    assert peers.addrs.value == ()
    for event in (selected(1, addr(1)), selected(2, addr(2)), selected(3, relayed)):
        peers.note(event)
    peers.note(selected(4, ViaSocket.of(addr(4), 7)))
    assert peers.addrs.value == (addr(1), addr(2))
    peers.note(selected(1, addr(11)))
    assert peers.addrs.value == (addr(2), addr(11))
    peers.note(PathLost(node(1), addr(1), 0.0, "silent"))
    assert peers.addrs.value == (addr(2), addr(11))
    peers.note(PathLost(node(1), addr(11), 0.0, "silent"))
    peers.note(PathForgotten(node(2), addr(2), 0.0))
    assert peers.addrs.value == ()


def test_the_last_connections_end() -> None:
    """A node that nobody holds any more is no peer; a relay in the place of a direct path ends it as well."""
    peers = DirectPeers()
    peers.note(selected(1, addr(1)))
    peers.note(selected(2, addr(2)))
    peers.forget(node(1))
    peers.forget(node(5))
    assert peers.addrs.value == (addr(2),)
    peers.note(selected(2, RelayPath(RelayUrl.parse("https://relay.example/"), node(2))))
    assert peers.addrs.value == ()


def test_they_are_few() -> None:
    """Of many peers the newest are told."""
    peers = DirectPeers()
    for number in range(1, 100):
        peers.note(selected(number, addr(number)))
    assert peers.addrs.value == tuple(addr(number) for number in range(100 - MAX_PEERS, 100))
