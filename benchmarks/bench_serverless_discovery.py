"""How surely a node that is published in the DHT is found by strangers, also when many DHT nodes have gone since."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.serverless.pairs import UPLINK
from tests.interop.peers.process import LineProcess, PeerMissing, python_module
from tests.netns.dht import DhtNet
from tests.netns.dht.net import public_addresses
from tom_connect.testing.natlab import Lab, missing

#: Look-ups of each stranger, which joins the DHT anew before the first.
PER_STRANGER: Final = 20
#: Steps in which 20% of the DHT's nodes are replaced.
STEPS: Final = 5
BEFORE, AFTER, TWICE = "at once", "20% of the DHT replaced in 10 minutes", "40%, half of it in one minute"
#: Seconds from one step to the next before each row.
PAUSES: Final = {AFTER: 120.0, TWICE: 12.0}
TINY_PAUSE: Final = 0.2

NODES_NOTE: Final = (
    "every node and every stranger is an endpoint with an address of its own, a fresh key and no saved state, which "
    "joins by two names; 30% of the DHT is without BEP 44, 5% dead; 50 ms to the DHT and back, 2% lost"
)
TIME_NOTE: Final = (
    f"of each 20% a fifth goes every {PAUSES[AFTER]:g} s, then every {PAUSES[TWICE]:g} s, without a word, and as many "
    "newcomers join. Who has published leaves at once, so nobody publishes again in between"
)


async def measure(options: Options) -> Report:
    """Publish nodes, have strangers look them up, replace a part of the DHT, and have others look them up."""
    count = options.rounds or 1000
    nodes = 100
    if options.tiny:
        count, nodes = 10, 30
    rows = [Row(BEFORE), Row(AFTER), Row(TWICE)]
    columns = [
        Column("nodes", "nodes looked up", more_is_better=True, ratio=False, digits=0),
        Column("found", "found, %", more_is_better=True, ratio=False, digits=2),
        Column("first", "first answer, ms", ratio=False, digits=0),
        Column("slow", "p95, ms", ratio=False, digits=0),
    ]
    title = f"{count} nodes published in a DHT of {nodes}, each looked up by a stranger"
    report = Report("serverless-discovery", title, columns, rows, BEFORE)
    if lacking := missing():
        for row in rows:
            row.absent = f"a network lab needs {', '.join(lacking)}"
        return report
    try:
        await _run(report, count, nodes, {} if options.tiny else PAUSES)
    except PeerMissing as error:
        for row in rows:
            row.absent = str(error)
        return report
    if not options.tiny:
        report.aim(
            "% found after 10 minutes with 20% replaced",
            report.value(AFTER, "found"),
            lambda left, right: left >= right,
            99.9,
        )
    report.notes.append(NODES_NOTE)
    report.notes.append(TIME_NOTE)
    return report


async def _run(report: Report, count: int, nodes: int, pauses: Mapping[str, float]) -> None:
    addresses = public_addresses(random.Random(3))
    with Lab() as lab, DhtNet.start(lab, nodes, dead=nodes // 20, wire=UPLINK) as dht:
        machines = [lab.host(name, ipv6=False) for name in ("publishers", "strangers")]
        commands = [host.command(python_module("benchmarks.serverless.population_process")) for host in machines]
        with LineProcess.start(commands[0]) as publishers, LineProcess.start(commands[1]) as strangers:
            hosts = list(itertools.islice(addresses, count))
            machines[0].add_addresses(hosts)
            published = await publishers.call("publish", hosts=hosts, bootstrap=dht.names, timeout=1800)
            found = [node for node in published["nodes"] if node["node_id"] is not None]
            stored = sorted(node["stored"] for node in found)
            report.notes.append(
                f"{len(found)} of {count} nodes could publish; their records went to {stored[0]} to {stored[-1]} nodes"
            )
            wanted = [(node["node_id"], node["addr"]) for node in found]
            for row in report.rows:
                if row.name != BEFORE:
                    for _ in range(STEPS):
                        await dht.replace(0.2 / STEPS)
                        await asyncio.sleep(pauses.get(row.name, TINY_PAUSE))
                groups = [wanted[at : at + PER_STRANGER] for at in range(0, len(wanted), PER_STRANGER)]
                asking = list(itertools.islice(addresses, len(groups)))
                machines[1].add_addresses(asking)
                answers = await strangers.call(
                    "resolve",
                    strangers=list(zip(asking, groups, strict=True)),
                    bootstrap=dht.names,
                    timeout=3600,
                )
                _fill(report, row, answers["found"])


def _fill(report: Report, row: Row, answers: list[list[Any]]) -> None:
    times = [seconds * 1000 for seconds, _ in answers if seconds is not None]
    row.add(nodes=len(answers), found=100 * len(times) / len(answers))
    for time in times:
        row.add(first=time)
    row.add(slow=row.p95("first"))
    for why in sorted({why for _, why in answers if why is not None})[:3]:
        report.notes.append(f"{row.name}, not found: {why[:200]}")


BENCH = Bench("serverless-discovery", "published nodes found by strangers while the DHT changes", measure)
