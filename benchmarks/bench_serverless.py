"""Two nodes that have nothing but a DHT, behind each pair of NAT kinds: from the key until traffic goes directly."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
import time
from collections import Counter
from typing import Final

from benchmarks.nat.settings import PAIRS, PROBING, RELAYED, homes
from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.serverless.pairs import (
    HYPERDHT,
    IROH,
    TOM,
    UPLINK,
    Couple,
    Meeting,
    couples,
    volunteers,
)
from tests.interop.peers.npm import NPM
from tests.interop.peers.process import PeerError, PeerMissing
from tom_connect.testing.natlab import Nat, missing

#: Seconds that a dial gets: trying ports takes hyperdht up to 13 s. A pair without a direct path gets fewer.
WAIT: Final = 20.0
WAIT_RELAYED: Final = 15.0
#: Seconds after which a connection of such a pair is believed to stay relayed.
RELAYED_FOR: Final = 5.0
#: Seconds for iroh, which either knows an address or gives up at once.
WAIT_IROH: Final = 5.0

VOLUNTEERS: Final = 2
"""Nodes that are relays for others; they come before the last pair, which has no direct path, and are in nobody's way
before."""
COUPLES: Final = 2
"""Pairs of hosts in the lab: while one dials the other joins, which is most of the time; no two dial at once."""

KINDS: Final = (TOM, HYPERDHT, IROH)

Cell = tuple[Nat, Nat]
Met = dict[str, list[Meeting]]


def _columns(kind: str) -> list[Column]:
    name = "" if kind == TOM else f"{kind}: "
    columns = [Column(f"{kind}_share", f"{name}direct, %", ratio=False, digits=0)]
    if kind == TOM:
        columns.insert(0, Column(f"{kind}_connected", "connected, %", ratio=False, digits=0))
        columns.insert(1, Column(f"{kind}_first", "ms", ratio=False, digits=0))
    if kind != IROH:
        columns.append(Column(f"{kind}_direct", "ms", ratio=False, digits=0))
        columns.append(Column(f"{kind}_slowest", "worst", ratio=False, digits=0))
    return columns


def contenders(options: Options, report: Report) -> list[str]:
    """Who takes part; the notes say who is missing, and why."""
    kinds = []
    for kind in KINDS:
        if kind in options.without:
            continue
        if kind == IROH and importlib.util.find_spec("iroh") is None:
            report.notes.append("iroh is not installed: dependency group bench")
        elif kind == HYPERDHT and not (NPM / "node_modules" / "hyperdht").is_dir():
            report.notes.append("npm's hyperdht is not installed: npm ci --prefix tests/interop/npm")
        else:
            kinds.append(kind)
    return kinds


async def matrix(options: Options) -> Report:
    """All pairs of kinds, those that `--only` names, or two of them for a smoke test."""
    cells = [(Nat.NONE, Nat.NONE), (Nat.MODERATE, Nat.NONE)] if options.tiny else list(PAIRS)
    cells = [cell for cell in cells if options.wants(_name(cell))]
    rows = [Row(_name(cell)) for cell in cells]
    title = "two nodes with a DHT and nothing else, 16 pairs of NAT kinds, 50 ms and 2% loss to home and DHT"
    if not cells:
        return Report("serverless", title, [], [], "", notes=[f"no pair has {' or '.join(options.only)} in its name"])
    report = Report("serverless", title, [], rows, rows[0].name)
    kinds = contenders(options, report)
    report.columns = [column for kind in kinds for column in _columns(kind)]
    if lacking := missing():
        for row in rows:
            row.absent = f"a network lab needs {', '.join(lacking)}"
        return report
    rounds = options.count(10)
    began = time.monotonic()
    all_met: dict[str, Met] = {}
    try:
        with couples(kinds, count=min(COUPLES, rounds)) as made:
            for cell, row in zip(cells, rows, strict=True):
                async with contextlib.AsyncExitStack() as stack:
                    if cell in RELAYED:
                        try:
                            await stack.enter_async_context(volunteers(made, VOLUNTEERS))
                        except PeerError as error:
                            # The other pairs have taken minutes: they are shown all the same.
                            row.absent = f"no volunteers: {str(error).splitlines()[0]}"
                            continue
                    met = await _measure(made, kinds, cell, rounds)
                _fill(row, met)
                all_met[row.name] = met
                print(f"{time.monotonic() - began:5.0f} s  {_summary(row, kinds)}", file=sys.stderr, flush=True)
    except PeerMissing as error:
        for row in rows:
            row.absent = str(error)
        return report
    if len(cells) == len(PAIRS):
        _aims(report, cells)
    report.notes += [
        *_failures(all_met),
        "ms: medians, from the dial of a key; both sides have joined and are published, with fresh keys and ports",
        f"{rounds} dials a pair, {time.monotonic() - began:.0f} s in all: no two at once, but the next joins meanwhile",
        "the DHTs: 50 nodes of Mainline, 15 of them without BEP 44, and 5 dead ones; 50 nodes of hyperdht",
        f"before strict x strict {VOLUNTEERS} volunteers come, whose relays ours finds through the DHT",
        "iroh has neither relay nor address server here, which is all that it could ask",
    ]
    return report


def _name(cell: Cell) -> str:
    return f"{cell[0].value} x {cell[1].value}"


async def _measure(made: list[Couple], kinds: list[str], cell: Cell, rounds: int) -> Met:
    """All dials of a pair, divided among the couples."""
    met: Met = {kind: [] for kind in kinds}

    async def measure(couple: Couple, number: int, rounds: int) -> None:
        couple.settle(homes(couple.lab, f"{cell[0].value}-{cell[1].value}-{number}", *cell, wire=UPLINK))
        for _ in range(rounds):
            for kind in kinds:
                wait = WAIT_IROH if kind == IROH else WAIT_RELAYED if cell in RELAYED else WAIT
                try:
                    met[kind].append(
                        await couple.meet(wait, kind, relayed_for=RELAYED_FOR if cell in RELAYED else None)
                    )
                except PeerError as error:
                    met[kind].append(Meeting(None, None, f"before the dial: {str(error).splitlines()[0]}"))

    shares = [len(range(number, rounds, len(made))) for number in range(len(made))]
    async with asyncio.TaskGroup() as group:
        for number, (couple, share) in enumerate(zip(made, shares, strict=True)):
            group.create_task(measure(couple, number, share))
    return met


def _fill(row: Row, met: Met) -> None:
    for kind, meetings in met.items():
        direct = [each.direct * 1000 for each in meetings if each.direct is not None]
        row.add(**{f"{kind}_share": 100 * len(direct) / len(meetings)})
        if kind == TOM:
            connected = [each.connected * 1000 for each in meetings if each.connected is not None]
            row.add(**{f"{kind}_connected": 100 * len(connected) / len(meetings)})
            for taken in connected:
                row.add(**{f"{kind}_first": taken})
        if kind != IROH:
            for taken in direct:
                row.add(**{f"{kind}_direct": taken})
            row.add(**{f"{kind}_slowest": max(direct, default=None)})


def _failures(met: dict[str, Met]) -> list[str]:
    """Each reason for which dials did not end on a direct path, with their number and the pairs."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for pair, kinds in met.items():
        for kind, meetings in kinds.items():
            for each in meetings:
                if each.direct is None:
                    found.setdefault((kind, each.why or "relayed"), Counter())[pair] += 1
    notes = []
    for (kind, reason), times in found.items():
        where = ", ".join(f"{pair} {count} times" for pair, count in times.items())
        everywhere = len(times) == len(met) > 1
        notes.append(f"{kind} not direct, {f'{times.total()} times, all pairs' if everywhere else where}: {reason}")
    return notes


def _summary(row: Row, kinds: list[str]) -> str:
    parts = []
    for kind in kinds:
        taken = row.median(f"{kind}_direct")
        parts.append(f"{kind} {row.median(f'{kind}_share'):.0f}%" + (f" {taken:.0f} ms" if taken is not None else ""))
    connected = row.median(f"{TOM}_connected")
    if connected is not None:
        parts[0] += f", connected {connected:.0f}%"
    return f"{row.name} direct: {'; '.join(parts)}"


def _aims(report: Report, cells: list[Cell]) -> None:
    def at_least(left: float, right: float) -> bool:
        return left >= right

    def at_most(left: float, right: float) -> bool:
        return left <= right

    direct = sum((report.value(_name(cell), f"{TOM}_share") or 0) >= 99 for cell in cells)
    report.aim("pairs of the 16 that are always direct", direct, at_least, 15)
    connected = sum((report.value(_name(cell), f"{TOM}_connected") or 0) >= 99 for cell in cells)
    report.aim("pairs of the 16 that are always connected", connected, at_least, 16)
    plain = [row for row in report.rows if row.name not in {_name(c) for c in (*PROBING, *RELAYED)}]
    times = Row("plain", {"direct": [taken for row in plain for taken in row.samples.get(f"{TOM}_direct", [])]})
    report.aim("ms to direct where no port is probed, median", times.median("direct"), at_most, 1500)
    report.aim("ms to direct where no port is probed, p95", times.p95("direct"), at_most, 5000)
    strict = max(
        (taken for cell in RELAYED for taken in report.row(_name(cell)).samples.get(f"{TOM}_first", [])), default=None
    )
    report.aim("ms for strict x strict through a volunteer, worst", strict, at_most, 15_000)
    theirs = Row("plain", {"direct": [taken for row in plain for taken in row.samples.get(f"{HYPERDHT}_direct", [])]})
    report.aim(
        "ms to direct where no port is probed, beside hyperdht",
        times.median("direct"),
        at_most,
        theirs.median("direct"),
    )


BENCH = Bench("serverless", "16 pairs of NAT kinds with a DHT and nothing else", matrix)
