"""What it costs to be reachable with nothing but the DHT while nobody calls."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.serverless.pairs import HYPERDHT, HYPERDHT_NODES, PLUGINS, UPLINK
from tests.interop.peers.npm import NPM
from tests.interop.peers.npm_hyperdht import start_hyperdht, start_hyperdht_network
from tests.interop.peers.process import LineProcess, PeerMissing, python_module
from tests.netns.dht import DhtNet
from tests.netns.dht.net import public_addresses
from tom_connect.testing.natlab import Host, Lab, Nat, missing

#: Seconds after joining in which tables fill and addresses are learned, and seconds that are counted.
SETTLE: Final = 60.0
COUNTED: Final = 120.0
ONE, MANY = 1, 1000
_COUNTERS: Final = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")


def _title(contacts: int) -> str:
    return f"{contacts:,} known peer{'s' if contacts > 1 else ''}"


async def measure(options: Options) -> Report:
    """Leave a node behind a home router alone, and count what passes its network interface."""
    rows = [Row(_title(ONE)), Row(_title(MANY)), Row(HYPERDHT)]
    columns = [
        Column("out", "packets out a minute", digits=0),
        Column("into", "packets in a minute", digits=0),
        Column("sent", "kB out a minute"),
        Column("received", "kB in a minute"),
        Column("cpu", "CPU, ms a minute", digits=0),
    ]
    title = "a published node behind a home router that nobody calls"
    report = Report("serverless-idle", title, columns, rows, rows[0].name)
    if lacking := missing():
        for row in rows:
            row.absent = f"a network lab needs {', '.join(lacking)}"
        return report
    try:
        await _run(report, settle=1.0 if options.tiny else SETTLE, counted=2.0 if options.tiny else COUNTED)
    except PeerMissing as error:
        for row in rows:
            row.absent = row.absent or str(error)
        return report
    report.notes.append("known peers: their records are kept in the data directory; nobody is connected")
    report.notes.append("counted at the node's interface, IP headers included, after a minute in which it has joined")
    return report


async def _run(report: Report, *, settle: float, counted: float) -> None:
    with Lab() as lab, DhtNet.start(lab, wire=UPLINK) as dht, tempfile.TemporaryDirectory() as folder:
        hosts = [lab.host(f"host{n}", lab.router(f"home{n}", Nat.MODERATE, wire=UPLINK)) for n in range(3)]
        command = python_module("benchmarks.serverless.tom_process")
        ours = [LineProcess.start(host.command(command)) for host in hosts[:2]]
        others: list[LineProcess] = []
        try:
            for process, contacts in zip(ours, (ONE, MANY), strict=True):
                data = Path(folder, str(contacts))
                await process.call("remember", data_dir=str(data), peers=contacts)
                await process.call("bind", bootstrap=dht.names, plugins=PLUGINS, data_dir=str(data))
                await process.call("published")
            if (NPM / "node_modules" / "hyperdht").is_dir():
                addresses = [
                    addr for addr, _ in zip(public_addresses(dht.chooser), range(HYPERDHT_NODES), strict=False)
                ]
                network, bootstrap = start_hyperdht_network(lab.host("hyperdht", wire=UPLINK, ipv6=False), addresses)
                others.append(network)
                others.append(start_hyperdht(hosts[2]))
                await others[-1].call("bind", bootstrap=bootstrap)
            else:
                report.rows[2].absent = "npm's hyperdht is not installed: npm ci --prefix tests/interop/npm"
            measured = [*ours, *others[1:]]
            await asyncio.sleep(settle)
            before = [await _costs(process, host) for process, host in zip(measured, hosts, strict=False)]
            await asyncio.sleep(counted)
            after = [await _costs(process, host) for process, host in zip(measured, hosts, strict=False)]
            for row, old, new in zip(report.rows, before, after, strict=False):
                _fill(row, old, new)
        finally:
            for process in (*ours, *others):
                process.close()


async def _costs(process: LineProcess, host: Host) -> dict[str, float]:
    device = f"/sys/class/net/{host.link.device}/statistics"
    read = await asyncio.to_thread(host.run, ["cat", *(f"{device}/{name}" for name in _COUNTERS)])
    costs: dict[str, Any] = await process.call("costs")
    return costs | dict(zip(_COUNTERS, map(int, read.stdout.split()), strict=True))


def _fill(row: Row, old: dict[str, float], new: dict[str, float]) -> None:
    minutes = (new["at"] - old["at"]) / 60
    a_minute = {name: (new[name] - old[name]) / minutes for name in (*_COUNTERS, "cpu")}
    row.add(
        out=a_minute["tx_packets"],
        into=a_minute["rx_packets"],
        sent=a_minute["tx_bytes"] / 1000,
        received=a_minute["rx_bytes"] / 1000,
        cpu=a_minute["cpu"] * 1000,
    )


BENCH = Bench("serverless-idle", "packets, bytes and CPU of being reachable through the DHT", measure)
