"""Bulk throughput while the receiver's socket also answers DHT queries."""

from __future__ import annotations

import contextlib

from benchmarks.dht.contender import Simulation
from benchmarks.quic.contender import OURS, missing
from benchmarks.quic.pair import pair
from benchmarks.report import Bench, Column, Options, Report, Row
from tests.interop.peers.process import LineProcess, python_module

MIB = 1 << 20
QUIET, LOADED = "no queries", "1,000 queries a second"
RATE = 1000


async def run(options: Options) -> Report:
    """Upload with and without queries in turn, over one connection."""
    size = options.pick(64 * MIB, MIB)
    report = Report(
        "shared-socket",
        f"{size // MIB} MiB to an endpoint whose socket is also its DHT node's",
        [
            Column("mb_s", "MB/s", more_is_better=True),
            Column("cpu_s_gb", "CPU s a GB, both sides"),
            Column("answered", "answered a second", ratio=False, digits=0),
            Column("lost", "unanswered, %", ratio=False),
        ],
        [Row(QUIET), Row(LOADED)],
        QUIET,
        notes=["find_node, get, get_peers and ping from a third process, which takes its share of the cores too"],
    )
    if absent := missing(OURS):
        for row in report.rows:
            row.absent = absent
        return report
    with contextlib.ExitStack() as stack:
        network = Simulation.start(60, rtt_ms=2.0, loss=0.0, dead=0.0)
        stack.callback(network.close)
        load = stack.enter_context(LineProcess.start(python_module("benchmarks.dht.queries_process")))
        bootstrap = [f"{host}:{port}" for host, port in network.entrances]
        async with pair(OURS, dht_bootstrap=bootstrap) as each:
            host, _, port = each.where["addresses"][0].rpartition(":")
            await each.client.call("connect", where=each.where)
            await each.client.call("upload", size=size)
            for _ in range(options.count(7)):
                for row in report.rows:
                    if row.name == LOADED:
                        await load.call("start", host=host, port=int(port), rate=RATE)
                    row.add(**await each.upload(size))
                    if row.name == LOADED:
                        counts = await load.call("stop")
                        if counts["sent"]:
                            lost = 100 - 100 * counts["replies"] / counts["sent"]
                            row.add(answered=counts["replies"] / counts["seconds"], lost=lost)
    report.aim("at least 0.9 of the throughput without", report.ratio(LOADED, "mb_s"), lambda a, b: a >= b, 0.9)
    return report


BENCH = Bench("shared-socket", "bulk throughput while the same socket answers 1,000 DHT queries a second", run)
