"""Two nodes that have nothing but a DHT, behind each pair of NAT kinds: from the key until traffic goes directly."""

from __future__ import annotations

import importlib.util
from typing import Final

from benchmarks.nat.settings import PAIRS, PROBING, RELAYED, homes
from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.serverless.pairs import HYPERDHT, IROH, TOM, UPLINK, Couple, Meeting, couple
from tests.interop.peers.npm import NPM
from tests.interop.peers.process import PeerError, PeerMissing
from tom_connect.testing.natlab import Nat, missing

#: Seconds that a dial gets: trying ports takes hyperdht up to 13 s; a pair that has no direct path is not waited for so long.
WAIT: Final = 20.0
WAIT_RELAYED: Final = 15.0
#: Seconds for iroh, which either knows an address or gives up at once.
WAIT_IROH: Final = 5.0

VOLUNTEERS: Final = 2
"""Nodes that are relays for others; they come before the last pair, which has no direct path, and are in nobody's way
before."""

KINDS: Final = (TOM, HYPERDHT, IROH)


def _columns(kind: str) -> list[Column]:
    shares = [Column(f"{kind}_share", f"{kind}: direct, %", more_is_better=True, ratio=False, digits=0)]
    if kind == IROH:
        return shares
    times = [
        Column(f"{kind}_direct", "direct, ms", ratio=False, digits=0),
        Column(f"{kind}_slowest", "slowest, ms", ratio=False, digits=0),
    ]
    if kind == TOM:
        shares.insert(0, Column(f"{kind}_connected", f"{kind}: connected, %", True, ratio=False, digits=0))
        shares.insert(1, Column(f"{kind}_first", "connected, ms", ratio=False, digits=0))
    return [*shares, *times]


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
    """All pairs of kinds, or two of them for a smoke test."""
    cells = [(Nat.NONE, Nat.NONE), (Nat.MODERATE, Nat.NONE)] if options.tiny else list(PAIRS)
    rows = [Row(_name(cell)) for cell in cells]
    title = "two nodes with a DHT and nothing else, 16 pairs of NAT kinds, 50 ms from home to home and to the DHT"
    report = Report("serverless", title, [], rows, rows[0].name)
    kinds = contenders(options, report)
    report.columns = [column for kind in kinds for column in _columns(kind)]
    if lacking := missing():
        for row in rows:
            row.absent = f"a network lab needs {', '.join(lacking)}"
        return report
    try:
        with couple(kinds, wire=UPLINK) as nodes:
            for cell, row in zip(cells, rows, strict=True):
                if cell in RELAYED:
                    await nodes.call_volunteers(VOLUNTEERS, UPLINK)
                nodes.settle(homes(nodes.lab, f"{cell[0].value}-{cell[1].value}", *cell, wire=UPLINK))
                await _measure(nodes, kinds, cell, row, options.count(10), report)
    except PeerMissing as error:
        for row in rows:
            row.absent = str(error)
        return report
    if not options.tiny:
        _aims(report, cells)
    report.notes += [
        "the time runs from the dial of a key; both sides have joined and are published, with fresh keys and ports",
        "the DHTs: 50 nodes of Mainline, 15 of them without BEP 44, and 5 dead ones; 50 nodes of hyperdht",
        f"before strict x strict {VOLUNTEERS} volunteers come, whose relays ours finds through the DHT",
        "iroh has neither relay nor address server here, which is all that it could ask",
    ]
    return report


def _name(cell: tuple[Nat, Nat]) -> str:
    return f"{cell[0].value} x {cell[1].value}"


async def _measure(
    nodes: Couple, kinds: list[str], cell: tuple[Nat, Nat], row: Row, rounds: int, report: Report
) -> None:
    met: dict[str, list[Meeting | None]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            try:
                wait = WAIT_RELAYED if cell in RELAYED else WAIT
                meeting = await nodes.meet(WAIT_IROH if kind == IROH else wait, kind)
            except PeerError as error:
                report.notes.append(f"{_name(cell)}, {kind}: {str(error).splitlines()[0]}")
                meeting = None
            met[kind].append(meeting)
    for kind, meetings in met.items():
        direct = [m.direct * 1000 for m in meetings if m is not None and m.direct is not None]
        row.add(**{f"{kind}_share": 100 * len(direct) / len(meetings)})
        if kind == TOM:
            connected = [m.connected * 1000 for m in meetings if m is not None and m.connected is not None]
            row.add(**{f"{kind}_connected": 100 * len(connected) / len(meetings)})
            for time in connected:
                row.add(**{f"{kind}_first": time})
        if kind != IROH:
            for time in direct:
                row.add(**{f"{kind}_direct": time})
            row.add(**{f"{kind}_slowest": max(direct, default=None)})
        reasons = {m.why for m in meetings if m is not None and m.direct is None and m.why}
        report.notes += [f"{_name(cell)}, {kind}: {reason[:200]}" for reason in sorted(reasons)[:1]]


def _aims(report: Report, cells: list[tuple[Nat, Nat]]) -> None:
    def at_least(left: float, right: float) -> bool:
        return left >= right

    def at_most(left: float, right: float) -> bool:
        return left <= right

    direct = sum((report.value(_name(cell), f"{TOM}_share") or 0) >= 99 for cell in cells)
    report.aim("pairs of the 16 that are always direct", direct, at_least, 15)
    connected = sum((report.value(_name(cell), f"{TOM}_connected") or 0) >= 99 for cell in cells)
    report.aim("pairs of the 16 that are always connected", connected, at_least, 16)
    plain = [row for row in report.rows if row.name not in {_name(c) for c in (*PROBING, *RELAYED)}]
    times = Row("plain", {"direct": [time for row in plain for time in row.samples.get(f"{TOM}_direct", [])]})
    report.aim("ms to direct where no port is probed, median", times.median("direct"), at_most, 1500)
    report.aim("ms to direct where no port is probed, p95", times.p95("direct"), at_most, 5000)
    theirs = Row("plain", {"direct": [time for row in plain for time in row.samples.get(f"{HYPERDHT}_direct", [])]})
    report.aim(
        "ms to direct where no port is probed, beside hyperdht",
        times.median("direct"),
        at_most,
        theirs.median("direct"),
    )


BENCH = Bench("serverless", "16 pairs of NAT kinds with a DHT and nothing else", matrix)
