"""Port probing that nobody has agreed on over a path: both ends know of it by a call."""

from __future__ import annotations

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.holepunch.disco import Mapping, PortProbing
from tom_connect.holepunch.path import ViaSocket
from tom_connect.holepunch.ports import MEET_FOR, OPEN_FOR, SOCKETS, PortProber
from tom_connect.keys import NodeId, SecretKey

ONE, OTHER = (SecretKey(name * 32).node_id for name in (b"a", b"b"))
THERE, ELSEWHERE = SocketAddr("198.18.0.9", 4433), SocketAddr("198.18.0.10", 4433)


@attrs.define
class Sockets:
    """The sockets that are open, and whom they were last opened towards."""

    open: set[int] = attrs.field(factory=set)
    towards: NodeId | None = None

    def open_socket(self, via: int) -> bool:
        self.open.add(via)
        return True

    def close_socket(self, via: int) -> None:
        self.open.discard(via)

    def probe(self, node_id: NodeId, path: SocketAddr, ttl: int | None = None) -> bool:
        self.towards = node_id
        return True

    def tell(self, node_id: NodeId, message: PortProbing) -> None:
        """Nobody is told anything: there is no path."""

    def drop_path(self, node_id: NodeId, path: ViaSocket, now: float) -> None:
        raise AssertionError

    def ask_attestation(self, node_id: NodeId) -> None:
        raise AssertionError


def hard_end() -> tuple[PortProber, Sockets]:
    """The end whose NAT shifts ports; two nodes are attested."""
    sockets = Sockets()
    prober = PortProber(sockets, lambda count: bytes(count))
    prober.mapping, prober.addr = Mapping.DEPENDENT, SocketAddr("198.18.0.1", 0)
    prober.attested(ONE, THERE.host, 0.0)
    prober.attested(OTHER, ELSEWHERE.host, 0.0)
    return prober, sockets


def until(prober: PortProber, end: float) -> None:
    """Do what is due until then."""
    while prober.due <= end:
        prober.tick(prober.due)


def test_sockets_wait_until_a_slow_end_has_read_the_call() -> None:
    """Who finds the call by its next poll, fetches it and asks who else names the caller may begin seconds later."""
    prober, sockets = hard_end()
    prober.meet(ONE, THERE, 0.0)
    until(prober, MEET_FOR - 0.1)
    assert len(sockets.open) == SOCKETS
    until(prober, MEET_FOR)
    assert not sockets.open


def test_patience_with_one_end_costs_no_other_its_turn() -> None:
    """While probes may be under way another call waits; after that the sockets are opened towards its caller."""
    prober, sockets = hard_end()
    prober.meet(ONE, THERE, 0.0)
    until(prober, OPEN_FOR - 0.1)
    prober.meet(OTHER, ELSEWHERE, OPEN_FOR - 0.1)
    assert sockets.towards == ONE
    until(prober, OPEN_FOR)
    prober.meet(OTHER, ELSEWHERE, OPEN_FOR)
    assert sockets.towards == OTHER
    assert len(sockets.open) == SOCKETS
