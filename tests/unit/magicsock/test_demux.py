"""Which protocol gets which datagram, and how much of the loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from tests.unit.magicsock.waiting import until
from tom_connect.abc import DatagramProtocol
from tom_connect.addr import SocketAddr
from tom_connect.magicsock import demux
from tom_connect.magicsock.demux import Demux, ProtocolQueue

HERE = SocketAddr("192.0.2.1", 1)
STUN = bytes.fromhex("000100002112a442") + bytes(12)
KRPC = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"


class Claims(DatagramProtocol):
    """Claims what begins with one of its heads, and keeps it."""

    def __init__(self, *heads: bytes, name: str = "test", priority: int = 0) -> None:
        self.heads = heads
        self.name = name
        self.priority = priority
        self.got: list[bytes] = []
        self.batches: list[int] = []
        self.fail = False

    def claims(self, head: bytes) -> bool:
        assert len(head) <= 8
        return head.startswith(self.heads)

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        if self.fail:
            raise RuntimeError("broken plugin")
        self.batches.append(len(datagrams))
        self.got += [data for data, _source in datagrams]


class Bench:
    """A demux whose outputs are kept."""

    def __init__(self) -> None:
        self.quic: list[list[bytes]] = []
        self.disco: list[bytes] = []
        self.counters: Counter[str] = Counter()
        self.demux = Demux(
            quic=lambda source, datagrams, now: self.quic.append(list(datagrams)),
            disco=lambda data, source, now: self.disco.append(data),
            counters=self.counters,
        )

    def add(self, protocol: DatagramProtocol) -> ProtocolQueue:
        queue = ProtocolQueue(
            protocol,
            asyncio.get_running_loop(),
            clock=time.monotonic,
            busy=self.demux.busy,
            counters=self.counters,
            logger=logging.getLogger("test"),
        )
        self.demux.add(queue)
        return queue

    def receive(self, *datagrams: bytes, now: float = 0.0) -> None:
        self.demux.received(HERE, list(datagrams), now)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_each_first_byte_goes_where_it_belongs() -> None:
    """For all 256 first bytes: bit 0x40 is QUIC, 4 to 15 disco, the rest whoever claims it."""
    bench = Bench()
    plugin = Claims(b"")
    bench.add(plugin)
    for first in range(256):
        bench.receive(bytes((first,)) + b"\x80rest")
    await settle()
    assert {data[0] for batch in bench.quic for data in batch} == {b for b in range(256) if b & 0x40}
    assert {data[0] for data in bench.disco} == set(range(4, 16))
    assert {data[0] for data in plugin.got} == {b for b in range(256) if not b & 0x40 and not 4 <= b <= 15}


async def test_krpc_and_quic_short_headers_that_begin_alike() -> None:
    """`d` and a digit is offered to protocols; `d` and anything else is QUIC, whatever they claim."""
    bench = Bench()
    dht, stun = Claims(b"d1:", b"d2:", name="dht"), Claims(b"\x00\x01", name="stun")
    bench.add(dht)
    bench.add(stun)
    quic = b"d\x80" + bytes(30)
    bench.receive(quic, KRPC, quic, STUN, b"", b"d", b"d7zzz")
    await settle()
    assert bench.quic == [[quic, quic, b"d"]]
    assert dht.got == [KRPC]
    assert stun.got == [STUN]
    assert bench.counters == {"empty datagram": 1, "claimed by no protocol": 1}


async def test_batches_of_quic_alone_are_passed_on_as_they_are() -> None:
    """The common case copies nothing: the very list that was received is handed over."""
    seen: list[object] = []
    d = Demux(quic=lambda s, datagrams, n: seen.append(datagrams), disco=lambda *a: None, counters=Counter())
    batch = [b"\x40" + bytes(20), b"\xc0" + bytes(20)]
    d.received(HERE, batch, 0.0)
    assert seen[0] is batch


async def test_priorities_and_removal() -> None:
    """Of two that claim, the higher priority gets it; once removed, the other does, and what waited is dropped."""
    bench = Bench()
    low, high = Claims(b"\x80", name="low"), Claims(b"\x80", name="high", priority=5)
    bench.add(low)
    bench.add(high)
    bench.receive(b"\x80one")
    await settle()
    bench.receive(b"\x80waits")
    bench.demux.remove(high)
    bench.receive(b"\x80two")
    await settle()
    assert high.got == [b"\x80one"]
    assert low.got == [b"\x80two"]


async def test_a_protocol_that_raises_is_counted_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Failures are logged once, counted each time, and neither QUIC nor other protocols notice."""
    bench = Bench()
    bad, good = Claims(b"\x80", name="bad"), Claims(b"\x81", name="good")
    bad.fail = True
    bench.add(bad)
    bench.add(good)
    for _ in range(3):
        bench.receive(b"\x80x", b"\x81y", b"\x40z")
        await settle()
    assert bench.counters == {"bad: failed": 3}
    assert len(good.got) == len(bench.quic) == 3
    assert len([r for r in caplog.records if "bad" in r.getMessage()]) == 1

    class BadClaims(Claims):
        def claims(self, head: bytes) -> bool:
            raise RuntimeError

    bench.add(BadClaims(name="worse", priority=9))
    bench.receive(b"\x81y")
    await settle()
    assert bench.counters["worse: failed"] == 1
    assert len(good.got) == 4


async def test_a_queue_is_bounded_and_its_drops_are_counted() -> None:
    """A flood within one turn leaves the queue's length of datagrams, in order; the rest is counted."""
    bench = Bench()
    plugin = Claims(b"\x80", name="flooded")
    bench.add(plugin)
    bench.receive(*(b"\x80" + i.to_bytes(2, "big") for i in range(demux.QUEUE + 88)))
    await until(lambda: len(plugin.got) >= demux.QUEUE)
    assert plugin.got[-1] == b"\x80" + (demux.QUEUE - 1).to_bytes(2, "big")
    assert max(plugin.batches) <= demux.BATCH
    assert bench.counters == {"flooded: queue full": 88}


class TurningLoop:
    """As much of an event loop as a queue needs, on a clock that moves only with the work that is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def call_soon(self, callback: Callable[[], None]) -> object:
        return self.call_later(0.0, callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        self._due.append((self.now + delay, callback))
        return object()

    def turn(self) -> None:
        ready = [entry for entry in self._due if entry[0] <= self.now]
        self._due = [entry for entry in self._due if entry[0] > self.now]
        for _, callback in ready:
            callback()


@pytest.mark.parametrize(("busy", "least", "most"), [(True, 0.15, 0.3), (False, 0.9, 1.0)])
def test_a_flooded_protocol_gets_a_quarter_of_the_time_while_quic_is_busy(
    busy: bool, least: float, most: float
) -> None:
    """With QUIC traffic a protocol that could fill the loop gets about its share; without, it gets all."""
    loop = TurningLoop()
    worked = 0.0

    class Slow(Claims):
        def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
            nonlocal worked
            worked += 0.0002 * len(datagrams)
            loop.now += 0.0002 * len(datagrams)

    queue = ProtocolQueue(
        Slow(b"\x80"),
        loop,  # type: ignore[arg-type]
        clock=lambda: loop.now,
        busy=lambda _now: busy,
        counters=Counter(),
        logger=logging.getLogger("test"),
    )
    while loop.now < 1.0:
        for _ in range(40):
            queue.push(b"\x80flood", HERE)
        loop.turn()
        loop.now += 0.0001  # what a turn of the loop itself takes
    assert least < worked / loop.now < most
