"""Two nodes that have nothing but a DHT, while somebody wants that they don't meet, or that they harm others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Final

from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.serverless.attack.attacks import ALL, Attack, none
from benchmarks.serverless.attack.stage import Spent, Stage, stage
from tests.interop.peers.process import PeerError, PeerMissing
from tom_connect.testing.natlab import missing

WAIT: Final = 20.0
"""Seconds that a dial gets."""
DIALS: Final = 4
"""Of each callee; each is by a caller that has just started."""
ROUNDS: Final = 20
TINY: Final = ("no attack, moderate x moderate", "20% lie about ip: defended")
"""Rows of a smoke test: dials succeed in both."""
HARMLESS: Final = 95.0
"""Percent of dials that shall succeed whatever the attack."""

NOTES: Final = (
    "each caller is a fresh node that joins the DHT in the time of its dial",
    "each callee has a fresh key, which the attacker knows before it is published",
    "the DHT: 50 nodes of Mainline, 15 of them without BEP 44, and 5 dead ones",
    "25 ms to the DHT and back, 50 ms from home to home, on which 1% and 2% are lost",
    "the attacker's nodes have ids of their addresses (BEP 42), each in a network of its own, and are known to all",
    "victim: the callee, or the caller of forged records; to strangers: packets to others than DHT nodes and the peer",
    "undefended: what the row is about is taken out of both nodes, in this benchmark alone",
)


def _rows() -> Iterator[tuple[str, Attack, tuple[str, ...]]]:
    shown = set()
    for attack in ALL:
        if attack.kinds not in shown:
            shown.add(attack.kinds)
            quiet = none(attack.kinds)
            yield quiet.name, quiet, ()
        yield f"{attack.name}: undefended", attack, attack.off
        yield f"{attack.name}: defended", attack, ()


async def measure(options: Options) -> Report:
    """Run each attack with and without the defences that are about it."""
    chosen = [each for each in _rows() if options.wants(each[0])]
    if options.tiny:
        chosen = [each for each in chosen if each[0] in TINY]
    columns = [
        Column("succeeded", "dials that succeeded, %", more_is_better=True, ratio=False, digits=0),
        Column("connected", "connected, ms", ratio=False, digits=0),
        Column("slow", "p95, ms", ratio=False, digits=0),
        Column("out", "victim's packets out/s", ratio=False),
        Column("into", "in/s", ratio=False),
        Column("cpu", "CPU, %", ratio=False),
        Column("strangers", "to strangers/s", ratio=False),
        Column("load", "load", ratio=False),
    ]
    report = Report(
        "serverless-attack",
        "two nodes that meet by a DHT alone, attacked",
        columns,
        [Row(c[0]) for c in chosen],
        chosen[0][0],
    )
    if lacking := missing():
        for row in report.rows:
            row.absent = f"a network lab needs {', '.join(lacking)}"
        return report
    rounds = options.count(ROUNDS)
    for row, (_, attack, off) in zip(report.rows, chosen, strict=True):
        try:
            await _run(row, attack, off, rounds, report)
        except PeerMissing as error:
            row.absent = str(error)
        except PeerError as error:
            row.absent = str(error).splitlines()[0]
    report.notes += NOTES
    if not options.tiny:
        for row in report.rows:
            if row.name.endswith(": defended"):
                report.aim(
                    f"% of dials, {row.name}", row.median("succeeded"), lambda left, right: left >= right, HARMLESS
                )
    return report


async def _run(row: Row, attack: Attack, off: tuple[str, ...], rounds: int, report: Report) -> None:
    times: list[float] = []
    dialed = 0
    with stage(attack.kinds, off=off) as scene:
        while dialed < rounds:
            if dialed:
                scene.new_callee()
            await attack.prepare(scene)
            scene.begin()
            before = await scene.tallies[attack.victim].read(scene.nodes[attack.victim])
            if (why := await scene.publish()) is not None:
                report.notes.append(f"{row.name}: a callee was not published: {why[:200]}")
            else:
                await attack.begin(scene)
                scene.begin()
                before = await scene.tallies[attack.victim].read(scene.nodes[attack.victim])
            met = await _dials(scene, min(DIALS, rounds - dialed))
            dialed += len(met)
            times += [time for time, _ in met if time is not None]
            _note_failures(row, [why for time, why in met if time is None], report)
            _count(row, before, await scene.tallies[attack.victim].read(scene.nodes[attack.victim]))
        sent = await scene.flood.call("rate")
        if sent["sent"]:
            report.notes.append(f"{row.name}: {sent['rate']:,.0f} packets a second left the attacker's machine")
    row.add(succeeded=100 * len(times) / dialed, load=os.getloadavg()[0])
    for time in times:
        row.add(connected=time * 1000)
    row.add(slow=row.p95("connected"))


async def _dials(scene: Stage, count: int) -> list[tuple[float | None, str | None]]:
    met = []
    for _ in range(count):
        said = await scene.dial(WAIT)
        met.append((said["connected"], said["why"]))
        await asyncio.sleep(0)
    return met


def _note_failures(row: Row, reasons: list[str | None], report: Report) -> None:
    report.notes += [f"{row.name}: {reason[:200]}" for reason in sorted({each for each in reasons if each})[:1]]


def _count(row: Row, old: Spent, new: Spent) -> None:
    seconds = new.at - old.at
    row.add(
        out=(new.out - old.out) / seconds,
        into=(new.into - old.into) / seconds,
        strangers=(new.strangers - old.strangers) / seconds,
        cpu=100 * (new.cpu - old.cpu) / seconds,
    )


BENCH = Bench("serverless-attack", "attacks on two nodes with a DHT alone, with and without each defence", measure)
