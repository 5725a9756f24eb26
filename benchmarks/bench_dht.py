"""DHT operations of three clients in one network: a lab of libtorrent nodes, and simulated nodes far away."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable

import attrs

from benchmarks.dht.contender import (
    BITTORRENT_DHT,
    CONTENDERS,
    LIBTORRENT,
    OURS,
    Entry,
    Lab,
    Network,
    Simulation,
    client_addresses,
    public_key,
)
from benchmarks.report import Bench, Column, Options, Report, Row
from tests.interop.peers import PeerMissing
from tests.interop.peers.dht import Address, DhtPeer

#: Bytes: an address record with a relay and some addresses.
VALUE = 300
#: Lookups of random keys that let a client fill its table before it counts as warm.
WARM_LOOKUPS = 10
#: A client is at rest when it sends no more than this while nothing is asked of it; it gets that many times to rest.
QUIET_PACKETS, QUIET_TRIES = 2, 30

#: Key and value.
Item = tuple[bytes, bytes]

COLUMNS = (
    Column("put_ms", "put, ms"),
    Column("copies", "copies", ratio=False),
    Column("put_packets", "packets", digits=0),
    Column("first_ms", "get: first, ms"),
    Column("end_ms", "end, ms"),
    Column("get_packets", "packets", digits=0),
    Column("cold_ms", "cold get, ms"),
    Column("missed", "missed", ratio=False, digits=2),
)


@attrs.define(eq=False)
class Client:
    """One contender's warm node."""

    entry: Entry
    peer: DhtPeer
    node: int
    address: Address
    row: Row
    network: Network

    async def put(self) -> None:
        """Put a fresh item; count packets until what goes on behind the put is over."""
        seed, before = os.urandom(32), await self._packets()
        put = await self.peer.put_mutable(seed, os.urandom(VALUE), node=self.node)
        await asyncio.sleep(self.network.settle)
        packets = await self._packets() - before
        self.row.add(put_ms=put.ms, put_packets=packets, copies=await self.network.copies(public_key(seed)))

    async def get(self, key: bytes, value: bytes) -> None:
        """Get an item that others have put."""
        before = await self._packets()
        got = await self.peer.get_mutable(key, node=self.node)
        await asyncio.sleep(self.network.settle)
        packets = await self._packets() - before
        found = got.value == value
        self.row.add(first_ms=got.first_ms, end_ms=got.end_ms, get_packets=packets, missed=float(not found))

    async def cold(self, address: Address, key: bytes, value: bytes) -> None:
        """Get an item from a client in a process that has just been started; the time counts from when it begins."""
        peer = await asyncio.to_thread(self.entry.start)
        try:
            got = await peer.cold_get(address, self.network.entrances, key)
        finally:
            await asyncio.to_thread(peer.close)
        self.row.add(cold_ms=got.first_ms, missed=float(got.value != value))

    async def warm(self) -> None:
        """Look about, and then wait until what a client does by itself after joining is over."""
        await self.peer.warm(self.node, WARM_LOOKUPS)
        for _ in range(QUIET_TRIES):
            before = await self._packets()
            await asyncio.sleep(self.network.settle)
            if await self._packets() - before <= QUIET_PACKETS:
                return

    async def _packets(self) -> int:
        return await self.network.packets(self.peer, self.node, self.address)


async def measure(report: Report, network: Network, options: Options, *, rounds: int, together: bool) -> None:
    """Let each contender put, get and start cold, round after round; together where they wait more than they work."""
    fresh = client_addresses()
    with contextlib.ExitStack() as stack:
        clients = []
        for entry in CONTENDERS:
            if entry.name in options.without:
                continue
            row = Row(entry.title)
            report.rows.append(row)
            try:
                peer = stack.enter_context(entry.start())
            except PeerMissing as missing:
                row.absent = str(missing)
                continue
            address = fresh()
            node = await peer.open(address, network.entrances)
            clients.append(Client(entry, peer, node, address, row, network))
        await asyncio.gather(*(client.warm() for client in clients))
        # All contenders get the same items: how far a target is from where one stands differs more than they do.
        values = [os.urandom(VALUE) for _ in range(rounds)]
        items = [(await network.place(value), value) for value in values]

        async def warm(client: Client, item: Item) -> None:
            await client.put()
            await client.get(*item)

        async def cold(client: Client, item: Item) -> None:
            await client.cold(fresh(), *item)

        # Cold starts come last: what started them is gone afterwards, but stands in the tables of others.
        for work in (warm, cold):
            if together:
                await asyncio.gather(*(repeat(work, client, items) for client in clients))
            else:
                for item in items:
                    for client in clients:
                        await work(client, item)


async def repeat(work: Callable[[Client, Item], Awaitable[None]], client: Client, items: list[Item]) -> None:
    """Do the same for a client with one item after the other."""
    for item in items:
        await work(client, item)


def add_aims(report: Report) -> None:
    """Say whether our figures are where we want them."""
    others = (LIBTORRENT.title, BITTORRENT_DHT.title)
    for key, text in (
        ("first_ms", "first value before the better of the two, ms"),
        ("cold_ms", "cold start before the better of the two, ms"),
        ("put_packets", "fewer packets for a put than the better of the two"),
        ("get_packets", "fewer packets for a get than the better of the two"),
    ):
        best = [value for name in others if (value := report.value(name, key)) is not None]
        report.aim(text, report.value(OURS.title, key), lambda a, b: a < b, min(best) if len(best) == 2 else None)


async def run_lab(options: Options) -> Report:
    """Measure in a lab of libtorrent nodes."""
    nodes = options.pick(50, 16)
    report = Report(
        "dht-lab",
        f"{nodes} libtorrent nodes on loopback, no delay",
        COLUMNS,
        [],
        LIBTORRENT.title,
        notes=["copies: whether a lab node finds what was put; packets: queries sent, counted by each client"],
    )
    network = Lab.start(nodes)
    try:
        await measure(report, network, options, rounds=options.count(20), together=False)
    finally:
        network.close()
    add_aims(report)
    return report


async def run_simulation(options: Options) -> Report:
    """Measure among simulated nodes."""
    nodes = options.pick(250, 40)
    rtt_ms, loss, dead = (5.0, 0.0, 0.0) if options.tiny else (50.0, 0.05, 0.2)
    report = Report(
        "dht-simulated",
        f"{nodes} nodes, median RTT {rtt_ms:.0f} ms, {loss:.0%} of datagrams lost, {dead:.0%} of nodes dead",
        COLUMNS,
        [],
        LIBTORRENT.title,
        notes=[
            "copies: how many of the 8 nearest live nodes hold what was put; packets: datagrams that the network saw",
            "RTT log-normal; dead nodes stay in the routing tables of others; the nodes share no code with any client",
        ],
    )
    network = Simulation.start(nodes, rtt_ms=rtt_ms, loss=loss, dead=dead)
    network.settle = options.pick(3, 0)
    try:
        await measure(report, network, options, rounds=options.count(10), together=True)
    finally:
        network.close()
    add_aims(report)
    report.aim("put under 1 s, ms", report.value(OURS.title, "put_ms"), lambda a, b: a < b, 1000.0)
    return report


LAB = Bench("dht-lab", "DHT put, get and cold start among 50 libtorrent nodes", run_lab)
SIMULATION = Bench("dht-simulated", "the same among 250 simulated nodes: 50 ms, 5% loss, 20% dead", run_simulation)
