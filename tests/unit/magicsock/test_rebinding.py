"""Sockets that the system takes away, or whose address is gone: opened anew underneath those who use them."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.unit.magicsock.test_demux import Claims
from tests.unit.magicsock.waiting import until
from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_connect.magicsock import rebinding as rebinding_module
from tom_connect.magicsock.rebinding import Rebinding
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.magicsock.udp import UdpSocket, open_socket

V4 = SocketAddr("127.0.0.1", 0)


class Bench:
    """A started socket, its rebinding, and what came of it. `refuse`: errors of the next attempts to open a socket."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.refuse: list[int] = []
        self.opened: list[SocketAddr] = []
        self.rebound = asyncio.Event()
        self.got: list[bytes] = []
        self.writable = 0
        self.rebinding = Rebinding(
            rebound=lambda _udp: self.rebound.set(),
            counters=self.counters,
            logger=logging.getLogger(__name__),
            opened=self.open,
        )
        self.udp = UdpSocket(
            open_socket(V4),
            receive=lambda _source, datagrams, _now: self.got.extend(datagrams),
            turn_end=lambda _now: None,
            writable=self.note_writable,
            clock=asyncio.get_running_loop().time,
            counters=self.counters,
            broken=self.rebinding.request,
        )

    def open(self, addr: SocketAddr) -> socket.socket:
        self.opened.append(addr)
        if self.refuse:
            raise OSError(self.refuse.pop(0), "refused by the test")
        return open_socket(addr)

    def note_writable(self) -> None:
        self.writable += 1

    async def done(self) -> None:
        await asyncio.wait_for(self.rebound.wait(), 10)
        self.rebound.clear()

    async def echo(self) -> None:
        """What is sent to where the socket says it is arrives."""
        self.udp.send_one(b"to myself", tuple(self.udp.local))
        await until(lambda: b"to myself" in self.got)
        self.got.clear()


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A bench whose socket runs."""
    monkeypatch.setattr(rebinding_module, "RETRIES", (0.01, 0.02))
    made = Bench()
    await made.udp.start(asyncio.get_running_loop())
    yield made
    await made.rebinding.aclose()
    made.udp.close()


async def test_the_port_stays(bench: Bench) -> None:
    """A new socket takes the place of the old one at the same address, and works."""
    before = bench.udp.local
    await bench.echo()
    for _ in range(3):
        bench.rebinding.request(bench.udp)
        await bench.done()
        assert bench.udp.local == before
        await bench.echo()
    assert bench.counters == Counter({"socket rebound": 3})


async def test_another_port_where_ours_is_taken(bench: Bench) -> None:
    """Where somebody has taken the port meanwhile, any free one does."""
    before = bench.udp.local
    bench.refuse = [errno.EADDRINUSE]
    bench.rebinding.request(bench.udp)
    await bench.done()
    assert bench.opened == [before, SocketAddr(before.host, 0)]
    assert bench.udp.local.host == before.host
    await bench.echo()


async def test_it_is_tried_until_the_address_is_back(bench: Bench) -> None:
    """While the address is gone sending is a counted loss, never an error; when it is back all goes on."""
    bench.refuse = [errno.EADDRNOTAVAIL] * 9
    bench.rebinding.request(bench.udp)
    await until(lambda: len(bench.refuse) < 5)
    assert not bench.udp.send_one(b"lost", ("127.0.0.1", 9))
    bench.udp.send([b"lost"] * 3, ("127.0.0.1", 9))
    assert bench.counters["send: EBADF"] == 4
    await bench.done()
    assert bench.counters["rebind: EADDRNOTAVAIL"] == 9
    await bench.echo()


async def test_a_change_of_the_network_ends_the_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further request does not wait for the pause between attempts to end."""
    monkeypatch.setattr(rebinding_module, "RETRIES", (3600.0,))
    bench.refuse = [errno.EADDRNOTAVAIL] * 2
    bench.rebinding.request(bench.udp)
    await until(lambda: not bench.refuse)
    bench.rebinding.request(bench.udp)
    await bench.done()
    await bench.echo()


@pytest.mark.skipif(sys.platform != "linux", reason="how a socket dies is played with a Linux TCP socket in its place")
async def test_a_socket_that_the_system_took_away(bench: Bench) -> None:
    """A socket that is none any more when it is read, as after sleep on macOS, is replaced, and works again."""
    loop = asyncio.get_running_loop()
    fd = bench.udp._sock.fileno()
    loop.remove_reader(fd)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as unconnected:
        unconnected.setblocking(False)
        os.dup2(unconnected.fileno(), fd)
    await bench.udp.start(loop)
    await bench.done()
    await bench.echo()
    assert bench.counters["receive: ENOTCONN"] == 1


async def test_datagrams_that_waited_are_counted(bench: Bench) -> None:
    """What waited for room in the old socket is lost, counted, and whoever waits to send is told that there is room."""
    bench.udp._wait([b"a", b"b"], tuple(bench.udp.local))
    assert bench.udp.congested
    bench.rebinding.request(bench.udp)
    await bench.done()
    assert not bench.udp.congested
    assert bench.counters["send: rebound"] == 2
    await until(lambda: bench.writable == 1)


async def test_asyncios_transport_is_replaced_too() -> None:
    """Where asyncio's own transport receives, since the loop has no readers, a new one takes its place at the port."""
    bench = Bench()
    loop = asyncio.get_running_loop()
    await bench.udp.start_transport(loop)

    async def start(loop: asyncio.AbstractEventLoop) -> None:
        await UdpSocket.start_transport(bench.udp, loop)

    bench.udp.start = start  # type: ignore[method-assign]
    before = bench.udp.local
    bench.rebinding.request(bench.udp)
    await bench.done()
    assert bench.udp.local == before
    await bench.echo()
    await bench.rebinding.aclose()
    bench.udp.close()
    await asyncio.sleep(0)


async def test_closing_in_the_middle(bench: Bench) -> None:
    """Who closes while an address is gone leaves nothing behind, and later requests do nothing."""
    bench.refuse = [errno.EADDRNOTAVAIL] * 1000
    bench.rebinding.request(bench.udp)
    await until(lambda: bool(bench.opened))
    await bench.rebinding.aclose()
    bench.udp.close()
    tried = len(bench.opened)
    bench.rebinding.request(bench.udp)
    await bench.udp.attach(open_socket(V4))
    assert len(bench.opened) == tried


async def test_only_sockets_whose_address_is_gone() -> None:
    """After a change the magic socket opens anew what is bound to an address that is gone; plugins keep their
    protocols, and the new port is told."""
    magic = MagicSocket(SecretKey.generate())
    try:
        await magic.bind([V4])
        udp = magic.udp_sockets[0]
        protocol = Claims(b"d1:")
        magic.add_protocol(protocol)
        told: list[SocketAddr] = []
        magic.set_rebound(lambda: told.extend(magic.local_addrs))
        magic.rebind({"192.0.2.1"})
        assert magic.counters["socket rebound"] == 0  # loopback is there without being listed
        udp.local = SocketAddr("198.51.100.1", udp.local.port)  # as if it were bound to an address that went away
        magic.rebind({"198.51.100.1"})
        magic.rebind({"192.0.2.1"})
        await until(lambda: magic.counters["rebind: EADDRNOTAVAIL"] >= 2)
        udp.local = SocketAddr("127.0.0.1", udp.local.port)
        magic.rebind(())
        magic._sockets.rebinding.request(udp)
        await until(lambda: bool(told))
        assert told == list(magic.local_addrs)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"d1:x", tuple(magic.local_addrs[0]))
            await until(lambda: protocol.got == [b"d1:x"])
    finally:
        await magic.aclose()
