"""Further sockets for port probing, and datagrams that die early, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.unit.magicsock.test_socket import Inbox, Make, make, met
from tests.unit.magicsock.waiting import until
from tom_connect.addr import SocketAddr
from tom_connect.holepunch import puncher
from tom_connect.holepunch.path import ViaSocket
from tom_connect.holepunch.pathstate import PathState
from tom_connect.magicsock import portsockets
from tom_connect.magicsock.portsockets import PortSockets
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.magicsock.udp import UdpSocket

__all__ = ["make"]

QUIC = b"\x40" + bytes(1199)


def with_ttl(*, timeout: float = 5.0) -> socket.socket:
    """A socket that is told the TTL of what it receives."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_RECVTTL", 12), 1)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(timeout)
    return sock


def received(sock: socket.socket) -> tuple[bytes, int]:
    """A datagram and its TTL."""
    data, ancillary, _flags, _source = sock.recvmsg(2048, 64)
    return data, int.from_bytes(ancillary[0][2][:4], sys.byteorder)


@pytest.fixture
def catcher() -> Iterator[socket.socket]:
    with with_ttl() as sock:
        yield sock


class Made:
    """Whole sockets that a PortSockets asked for, and what they received."""

    def __init__(self) -> None:
        self.vias: list[int] = []
        self.got: list[bytes] = []
        self.counters: Counter[str] = Counter()
        self.sockets = PortSockets("127.0.0.1", loop=asyncio.get_running_loop(), make=self.make, counters=self.counters)

    def make(self, sock: socket.socket, via: int) -> UdpSocket:
        self.vias.append(via)
        return UdpSocket(
            sock,
            receive=lambda _source, datagrams, _now: self.got.extend(datagrams),
            turn_end=lambda _now: None,
            writable=lambda: None,
            clock=asyncio.get_running_loop().time,
            counters=self.counters,
        )


async def test_an_opener_dies_early_and_what_follows_does_not(make: Make, catcher: socket.socket) -> None:
    """Only the opener has the small TTL; the datagrams before and after it have the system's."""
    magic = await make(SocketAddr("127.0.0.1", 0))
    udp = magic.udp_sockets[0]
    assert udp.limits_ttl
    dest = catcher.getsockname()
    udp.send_one(b"before", dest)
    udp.send_opener(b"opener", dest, puncher.OPENING_TTLS[0])
    udp.send((b"after", b"after"), dest)
    (first, usual), opener, *rest = (received(catcher) for _ in range(4))
    assert first == b"before"
    assert usual > 30
    assert opener == (b"opener", puncher.OPENING_TTLS[0])
    assert rest == [(b"after", usual)] * 2


async def test_a_socket_that_is_sent_from_stays_bare_until_something_arrives(catcher: socket.socket) -> None:
    """Of eight sockets that send, one gets an answer: it alone becomes whole, and what arrived is not lost."""
    made = Made()
    assert all(made.sockets.open(via) for via in range(8))
    for via in range(8):
        made.sockets.send(via, b"%d" % via, catcher.getsockname(), puncher.OPENING_TTLS[0] if via % 2 else None)
    seen = {}
    for _ in range(8):
        data, _ancillary, _flags, source = catcher.recvmsg(2048, 64)
        seen[data] = source
    assert made.vias == []
    catcher.sendto(b"hit", seen[b"5"])
    await until(lambda: made.got == [b"hit"])
    assert made.vias == [5]
    made.sockets.send(5, b"whole", catcher.getsockname())
    assert catcher.recvmsg(2048, 64)[3] == seen[b"5"]
    assert len(made.sockets) == 8
    for via in range(8):
        if via != 5:
            made.sockets.close(via)
    made.sockets.close(99)
    assert len(made.sockets) == 1
    made.sockets.close_all()
    assert len(made.sockets) == 0
    made.sockets.send(5, b"closed", catcher.getsockname())
    assert made.sockets.get(5) is None


async def test_descriptors_are_left_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the process's limit of descriptors no further socket is opened, and that is counted."""
    monkeypatch.setattr(portsockets, "descriptor_limit", lambda: 0)
    made = Made()
    assert not made.sockets.open(1)
    assert made.counters["port probing: no more sockets"] == 1
    assert len(made.sockets) == 0


async def test_quic_and_disco_go_through_the_socket_that_won(make: Make) -> None:
    """A path through a further socket is proven by disco and carries QUIC both ways; closing takes the socket along."""
    a, b = await make(SocketAddr("127.0.0.1", 0)), await make(SocketAddr("127.0.0.1", 0))
    there, back = a.remote(b.node_id), b.remote(a.node_id)
    b_inbox, a_inbox = Inbox(b), Inbox(a)
    path = through_further_socket(a, b)
    state = there.core.add(path, "call-me-maybe", a.now(), given=False)
    assert isinstance(state, PathState)
    a.pump_if_needed(there.core)
    async with asyncio.timeout(10):
        await there.wait_usable()
        await back.wait_usable()
    assert there.active_path == path
    assert isinstance(back.active_path, SocketAddr)
    assert back.active_path != a.local_addrs[0]
    a.send_quic(there.address, [QUIC, QUIC], a.now())
    await b_inbox.until(2)
    assert {source for source, _data in b_inbox.got} == {back.active_path}
    b.send_quic(back.address, [QUIC], b.now())
    await a_inbox.until(1)
    assert a_inbox.got == [(path, QUIC)]


def through_further_socket(a: MagicSocket, b: MagicSocket) -> ViaSocket:
    """A path to `b` through a further socket of `a`."""
    sockets = a._sockets.further
    assert sockets is not None
    assert sockets.open(7)
    return ViaSocket.of(b.local_addrs[0], 7)


def test_a_path_through_a_socket_is_another_path() -> None:
    """It equals neither the plain address nor the same address through another socket, in either order."""
    addr = SocketAddr("192.0.2.1", 7)
    one, same, two = ViaSocket.of(addr, 1), ViaSocket.of(addr, 1), ViaSocket.of(addr, 2)
    assert one == same
    assert hash(one) == hash(same)
    assert one not in (two, addr)
    assert addr != one
    assert len({addr, one, same, two}) == 3
    assert (one.host, one.port, str(one)) == (addr.host, addr.port, str(addr))


async def test_the_reason_for_a_relayed_path_is_there_for_those_who_look(make: Make) -> None:
    """A direct pair has no reason to give."""
    a, b = await make(SocketAddr("127.0.0.1", 0)), await make(SocketAddr("127.0.0.1", 0))
    there, _back = await met(a, b)
    assert a.why_relayed(there) is None
    assert there.path_counts().why_relayed is None
