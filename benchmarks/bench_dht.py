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

    async def get(self) -> None:
        """Get an item that others have put."""
        value = os.urandom(VALUE)
        key, before = await self.network.place(value), await self._packets()
        got = await self.peer.get_mutable(key, node=self.node)
        await asyncio.sleep(self.network.settle)
        packets = await self._packets() - before
        found = got.value == value
        self.row.add(first_ms=got.first_ms, end_ms=got.end_ms, get_packets=packets, missed=float(not found))

    async def cold(self, address: Address) -> None:
        """Get an item from a client that has just been started."""
        value = os.urandom(VALUE)
        key = await self.network.place(value)
        got = await self.peer.cold_get(address, self.network.entrances, key)
        self.row.add(cold_ms=got.first_ms, missed=float(got.value != value))

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
        await asyncio.gather(*(client.peer.warm(client.node, WARM_LOOKUPS) for client in clients))

        async def warm(client: Client) -> None:
            await client.put()
            await client.get()

        async def cold(client: Client) -> None:
            await client.cold(fresh())

        # Cold starts come last: what started them is gone afterwards, but stands in the tables of others.
        for work in (warm, cold):
            if together:
                await asyncio.gather(*(repeat(work, client, rounds) for client in clients))
            else:
                for _ in range(rounds):
                    for client in clients:
                        await work(client)


async def repeat(work: Callable[[Client], Awaitable[None]], client: Client, rounds: int) -> None:
    """Do the same for a client again and again."""
    for _ in range(rounds):
        await work(client)


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
