"""One UDP socket: batches, segmentation offload with and without, full buffers, errors."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.magicsock import sockopts, udp
from tom_connect.magicsock.udp import UdpSocket, open_socket, sockaddr


class End:
    """A UdpSocket on loopback that keeps what it gets."""

    def __init__(self, sock: Any) -> None:
        self.got: list[bytes] = []
        self.batches: list[tuple[SocketAddr, int]] = []
        self.turns = 0
        self.writable = 0
        self.counters: Counter[str] = Counter()
        self.changed = asyncio.Event()
        self.udp = UdpSocket(
            sock,
            receive=self.receive,
            turn_end=self.turn_end,
            writable=self.note_writable,
            clock=time.monotonic,
            counters=self.counters,
        )

    def receive(self, source: SocketAddr, datagrams: list[bytes], now: float) -> None:
        self.got += datagrams
        self.batches.append((source, len(datagrams)))

    def turn_end(self, now: float) -> None:
        self.turns += 1
        self.changed.set()

    def note_writable(self) -> None:
        self.writable += 1
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


MakeEnd = Callable[..., Any]


@pytest.fixture
async def make() -> AsyncIterator[MakeEnd]:
    """Makes started ends, and closes them."""
    ends: list[End] = []

    async def started(host: str = "127.0.0.1", *, transport: bool = False, wrap: Any = None) -> End:
        sock = open_socket(SocketAddr(host, 0))
        end = End(wrap(sock) if wrap else sock)
        ends.append(end)
        loop = asyncio.get_running_loop()
        await (end.udp.start_transport(loop) if transport else end.udp.start(loop))
        return end

    yield started
    for end in ends:
        end.udp.close()
    await asyncio.sleep(0)


def address(end: End) -> tuple[Any, ...]:
    return sockaddr(end.udp.local)


def patterns(seed: int) -> list[bytes]:
    """Runs of equal sizes, shorter last ones, single odd ones, empty and large ones."""
    rng = random.Random(seed)
    out: list[bytes] = []
    for _ in range(40):
        size = rng.choice([1, 40, 1200, 1200, 1200, 1452, 9000])
        out += [rng.randbytes(size) for _ in range(rng.choice([1, 2, 3, 63, 64, 65, 100]) if size < 9000 else 8)]
        if rng.random() < 0.5:
            out.append(rng.randbytes(rng.randint(1, size)))
    return out


@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize("gro", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_every_datagram_arrives_whole_and_in_order(make: MakeEnd, gso: bool, gro: bool, host: str) -> None:
    """With offload on either side or none, the same datagrams arrive in order, from one source, in few batches."""
    a, b = await make(host), await make(host)
    if gso and not a.udp.gso:
        pytest.skip("this system has no UDP segmentation offload")
    a.udp.gso = gso
    if not gro:
        await make(host)  # an end with GRO beside, to show that it is a setting of each socket
        sockopts.try_option(b.udp._sock, sockopts.SOL_UDP, sockopts.UDP_GRO, 0)
        b.udp._loop.remove_reader(b.udp._sock.fileno())
        b.udp._loop.add_reader(b.udp._sock.fileno(), b.udp._drain)
    datagrams = patterns(3)
    sent = 0
    while sent < len(datagrams):
        # As much as the receiver's buffer surely takes.
        group = datagrams[sent : sent + 150]
        a.udp.send(group, address(b))
        sent += len(group)
        await b.until(lambda wanted=sent: len(b.got) >= wanted)  # type: ignore[misc]
    assert b.got == datagrams
    assert {source for source, _count in b.batches} == {a.udp.local}
    assert len(b.batches) < len(datagrams) / 5
    assert not a.counters
    assert not b.counters


async def test_asyncio_transport_stands_in_where_there_are_no_readers(make: MakeEnd) -> None:
    """On a loop without add_reader (Windows' proactor) the same socket works through asyncio's transport."""
    a, b = await make(transport=True), await make(transport=True)
    a.udp.send([b"one", b"two", b"x" * 1400], address(b))
    await b.until(lambda: len(b.got) == 3)
    assert b.got == [b"one", b"two", b"x" * 1400]
    assert b.batches[0][0] == a.udp.local


async def test_start_falls_back_by_itself(make: MakeEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that refuses readers gets the transport, without anybody asking for it."""
    loop = asyncio.get_running_loop()
    real = loop.add_reader

    def refuse(*args: Any) -> None:
        monkeypatch.setattr(loop, "add_reader", real)
        raise NotImplementedError

    monkeypatch.setattr(loop, "add_reader", refuse)
    a = await make()
    b = await make()
    assert a.udp._transport is not None
    b.udp.send([b"hello"], address(a))
    await a.until(lambda: a.got == [b"hello"])


class FakeSocket:
    """Wraps a real socket; sends fail as told, options are counted."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.block = False
        self.train_error: int | None = None
        self.limit = 70_000
        self.options: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def setsockopt(self, *args: Any) -> None:
        self.options.append(args)
        self.real.setsockopt(*args)

    def sendto(self, data: bytes, dest: tuple[Any, ...]) -> int:
        if self.block:
            raise BlockingIOError
        if len(data) > self.limit:
            raise OSError(errno.EMSGSIZE, "too long")
        return self.real.sendto(data, dest)

    def sendmsg(self, buffers: Sequence[bytes], anc: Any, flags: int, dest: tuple[Any, ...]) -> int:
        if self.block:
            raise BlockingIOError
        if self.train_error is not None:
            raise OSError(self.train_error, "no")
        return self.real.sendmsg(buffers, anc, flags, dest)


def fake(end: End) -> FakeSocket:
    sock = end.udp._sock
    assert isinstance(sock, FakeSocket)
    return sock


async def test_offload_that_fails_is_switched_off_and_nothing_is_lost(make: MakeEnd) -> None:
    """A device that refuses trains costs one failed call: the datagrams go out singly, then and later."""
    a, b = await make(wrap=FakeSocket), await make()
    if not a.udp.gso:
        pytest.skip("this system has no UDP segmentation offload")
    fake(a).train_error = errno.EIO
    datagrams = [bytes([i]) * 1200 for i in range(20)]
    a.udp.send(datagrams, address(b))
    await b.until(lambda: len(b.got) == 20)
    assert b.got == datagrams
    assert a.udp.gso is False
    assert a.counters == {"segmentation offload switched off": 1}


async def test_a_path_too_narrow_does_not_switch_offload_off(make: MakeEnd) -> None:
    """Where single datagrams are too long as well, the path is to blame: they are lost, and offload stays."""
    a, b = await make(wrap=FakeSocket), await make()
    if not a.udp.gso:
        pytest.skip("this system has no UDP segmentation offload")
    fake(a).train_error, fake(a).limit = errno.EMSGSIZE, 1400
    a.udp.send([bytes(1452)] * 5, address(b))
    assert a.udp.gso is True
    assert a.counters == {"send: EMSGSIZE": 5}


async def test_dont_fragment_is_set_for_large_datagrams_alone_and_only_when_it_changes(make: MakeEnd) -> None:
    """Sizes up to 1200 clear it, larger ones set it, and equal needs cost no system call."""
    a, b = await make(wrap=FakeSocket), await make()
    if a.udp._set_dont_fragment is None:
        pytest.skip("this system has no don't-fragment option")
    fake(a).options.clear()
    for size in (1200, 40, 1201, 1452, 1452, 1200, 1000):
        a.udp.send([bytes(size)], address(b))
    level_option_value = [args[2] for args in fake(a).options]
    assert len(level_option_value) == 3
    assert level_option_value[0] == level_option_value[2] != level_option_value[1]
    fake(a).options.clear()
    a.udp.send([bytes(1452)] * 10, address(b))
    a.udp.send([bytes(1452)] * 10, address(b))
    assert len(fake(a).options) == 1


async def test_full_buffers_queue_a_bounded_number_and_say_when_they_are_free(make: MakeEnd) -> None:
    """While the kernel takes nothing, 1,024 datagrams wait in order and more are dropped; then the sender is told."""
    a, b = await make(wrap=FakeSocket), await make()
    sock = fake(a)
    sock.block = True
    datagrams = [i.to_bytes(2, "big") for i in range(udp.BACKLOG + 76)]
    for at in range(0, len(datagrams), 50):
        a.udp.send(datagrams[at : at + 50], address(b))
    assert a.udp.congested
    assert a.counters == {"send: backlog full": 76}
    assert not a.udp.send_one(b"too late", address(b))
    sock.block = False
    await a.until(lambda: a.writable == 1)
    assert not a.udp.congested
    await b.until(lambda: len(b.got) == udp.BACKLOG)
    assert b.got == datagrams[: udp.BACKLOG]
    a.udp.send([b"after"], address(b))
    await b.until(lambda: b.got[-1] == b"after")
    assert a.writable == 1


async def test_errors_of_the_network_are_counted_and_never_raised(make: MakeEnd) -> None:
    """Closed ports (ICMP), oversized datagrams and forbidden addresses raise nothing and stop nothing."""
    a, b, gone = await make(), await make(), await make()
    closed = address(gone)
    gone.udp.close()
    for _ in range(5):
        a.udp.send([b"anybody?"] * 3, closed)
        await asyncio.sleep(0)
    a.udp.send_one(bytes(70_000), address(b))
    a.udp.send_one(b"x", ("255.255.255.255", 9))
    assert sum(a.counters.values()) >= 2
    b.udp.send([b"still here"], address(a))
    await a.until(lambda: a.got == [b"still here"])


async def test_one_turn_takes_a_bounded_number_of_datagrams(make: MakeEnd) -> None:
    """A flood is taken in turns of about 256 datagrams, so that timers run between them."""
    a, b = await make(), await make()
    a.udp.gso = False
    for _ in range(30):
        a.udp.send([bytes(10)] * 30, address(b))
    await b.until(lambda: len(b.got) == 900)
    assert b.turns >= 900 // (udp.DRAIN_PACKETS + 64)
    assert max(count for _source, count in b.batches) <= udp.DRAIN_PACKETS + 64


async def test_batches_are_of_one_source(make: MakeEnd) -> None:
    """Interleaved senders come as separate batches, each under its own address, which is the same object each time."""
    a, b, c = await make(), await make(), await make()
    for _ in range(3):
        a.udp.send([b"a", b"a"], address(c))
        b.udp.send([b"b"], address(c))
    await c.until(lambda: len(c.got) == 9)
    assert [source for source, _count in c.batches[:2]] == [a.udp.local, b.udp.local]
    assert len({id(source) for source, _count in c.batches}) == 2


async def test_closing_in_the_middle_of_a_turn_ends_it(make: MakeEnd) -> None:
    """A receiver that closes its socket gets nothing more, and sending is counted instead of raised."""
    a, b = await make(), await make()
    b.udp._receive = lambda source, datagrams, now: (b.got.extend(datagrams), b.udp.close())
    for size in (10, 20, 30):
        a.udp.send([bytes(size)], address(b))
        a.udp.send([bytes(size)] * 2, address(b))
    await b.until(lambda: b.turns == 1)
    await asyncio.sleep(0.01)
    assert b.turns == 1
    b.udp.send([b"x", b"y"], address(a))
    assert b.counters["send: closed"] == 2
    b.udp.close()


async def test_what_waits_is_tried_once_more_at_close(make: MakeEnd) -> None:
    """A last word that full buffers held back leaves with the socket."""
    a, b = await make(wrap=FakeSocket), await make()
    fake(a).block = True
    a.udp.send([b"bye"], address(b))
    fake(a).block = False
    a.udp.close()
    await b.until(lambda: b.got == [b"bye"])


def test_socket_addresses_of_each_kind() -> None:
    """IPv4, IPv6 and scoped IPv6 addresses become what the socket module wants; unknown scopes are an OSError."""
    assert sockaddr(SocketAddr("192.0.2.1", 5)) == ("192.0.2.1", 5)
    assert sockaddr(SocketAddr("2001:db8::1", 5)) == ("2001:db8::1", 5, 0, 0)
    assert sockaddr(SocketAddr("fe80::1%7", 5)) == ("fe80::1", 5, 0, 7)
    with pytest.raises(OSError, match=r"nosuchif|interface|device|such"):
        sockaddr(SocketAddr("fe80::1%nosuchif", 5))
