"""Two nodes behind NATs, in a lab of network namespaces: how soon they are connected, and how soon directly."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from benchmarks.nat.pairs import IROH, TOM, Couple, Meeting, couple
from benchmarks.nat.settings import EXTRAS, PAIRS, PROBING, RELAYED, Routers, homes
from benchmarks.report import Bench, Column, Options, Report, Row
from tests.interop.peers.process import PeerError
from tom_connect.testing.natlab import Lab, Nat, Wire, missing

FAR: Final = Wire(delay=0.010)
LOSSY: Final = Wire(delay=0.010, loss=0.02)
#: Seconds that a direct path gets. Trying ports takes some; a pair that never gets one shows it in less.
WAIT: Final = 5.0
WAIT_PROBING: Final = 15.0
WAIT_RELAYED: Final = 2.0

Build = Callable[[Lab, str, Wire | None], Routers]


@attrs.frozen
class Net:
    """Where a pair of nodes is put: its name, how its routers are made, and how long a direct path may take."""

    name: str
    build: Build
    wait: float = WAIT


def _cell(dialer: Nat, listener: Nat) -> Net:
    wait = WAIT_PROBING if (dialer, listener) in PROBING else WAIT
    if (dialer, listener) in RELAYED:
        wait = WAIT_RELAYED

    def build(lab: Lab, name: str, wire: Wire | None) -> Routers:
        return homes(lab, name, dialer, listener, wire)

    return Net(f"{dialer.value} x {listener.value}", build, wait)


MATRIX: Final = {cell: _cell(*cell) for cell in PAIRS}
NETS: Final = [Net(name.replace("-", " "), build) for name, build in EXTRAS.items()]


def _columns(kind: str) -> list[Column]:
    return [
        Column(f"{kind}_share", f"{kind}: direct, %", more_is_better=True, ratio=False, digits=0),
        Column(f"{kind}_connected", "connected, ms", ratio=False, digits=0),
        Column(f"{kind}_direct", "direct, ms", ratio=False, digits=0),
    ]


async def measure(name: str, title: str, nets: list[Net], wire: Wire | None, options: Options) -> Report:
    """Connect each contender in each net, turn by turn, with endpoints that are new each time."""
    wanted = [TOM, *([IROH] if importlib.util.find_spec("iroh") else [])]
    kinds = [kind for kind in wanted if kind not in options.without]
    rows = [Row(net.name) for net in nets]
    report = Report(name, title, [column for kind in kinds for column in _columns(kind)], rows, rows[0].name)
    if lacking := missing():
        for row in rows:
            row.absent = f"needs {', '.join(lacking)}"
        return report
    with couple(kinds) as nodes:
        for number, (net, row) in enumerate(zip(nets, rows, strict=True)):
            nodes.settle(net.build(nodes.lab, f"net{number}", wire))
            met: dict[str, list[Meeting | None]] = {kind: [] for kind in kinds}
            for _ in range(options.count(10)):
                for kind in kinds:
                    met[kind].append(await _meet(nodes, kind, net, report))
            for kind, meetings in met.items():
                _fill(row, kind, meetings)
    report.notes.append("medians of runs; the time runs from the dial, to a node of which its id and relay are known")
    if IROH in kinds:
        report.notes.append(
            "iroh asks only relays with publicly trusted certificates for its outer address; where the NAT keeps "
            "ports, it is told beforehand, which costs it no time"
        )
    return report


async def _meet(nodes: Couple, kind: str, net: Net, report: Report) -> Meeting | None:
    wait = WAIT if kind == IROH and net.wait > WAIT else net.wait  # it gets none, so all that time is lost
    try:
        return await nodes.meet(wait, kind)
    except PeerError as error:
        report.notes.append(f"{net.name}, {kind}: {str(error).splitlines()[0]}")
        return None


def _fill(row: Row, kind: str, meetings: list[Meeting | None]) -> None:
    for meeting in filter(None, meetings):
        direct = meeting.direct * 1000 if meeting.direct is not None else None
        row.add(**{f"{kind}_connected": meeting.connected * 1000, f"{kind}_direct": direct})
    reached = sum(meeting is not None and meeting.direct is not None for meeting in meetings)
    row.add(**{f"{kind}_share": 100 * reached / len(meetings)})


async def matrix(options: Options, *, name: str, title: str, wire: Wire | None) -> Report:
    """All pairs of kinds, or two of them for a smoke test."""
    tiny = [(Nat.NONE, Nat.NONE), (Nat.MODERATE, Nat.MODERATE)]
    cells = tiny if options.tiny else [cell for cell in PAIRS if options.wants(MATRIX[cell].name)]
    if not cells:
        return Report(name, title, [], [], "", notes=[f"no pair has {' or '.join(options.only)} in its name"])
    report = await measure(name, title, [MATRIX[cell] for cell in cells], wire, options)
    if not any(row.samples for row in report.rows) or options.tiny:
        return report
    if len(cells) == len(PAIRS):
        _aim_at_all(report)
    _aim_at_times(report, cells, wire)
    return report


def _aim_at_all(report: Report) -> None:
    always = sum((report.value(MATRIX[cell].name, f"{TOM}_share") or 0) >= 99 for cell in PAIRS)
    report.aim("pairs of the 16 that are always direct", always, lambda left, right: left >= right, 15)


def _aim_at_times(report: Report, cells: Sequence[tuple[Nat, Nat]], wire: Wire | None) -> None:
    for cell in PROBING.intersection(cells):
        text = f"seconds to direct, {MATRIX[cell].name}"
        median = report.value(MATRIX[cell].name, f"{TOM}_direct")
        report.aim(text, median / 1000 if median else None, lambda left, right: left < right, 2.0)
    plain = [MATRIX[cell].name for cell in cells if cell not in PROBING and cell not in RELAYED]
    home = MATRIX[Nat.MODERATE, Nat.MODERATE].name
    if wire is None and home in plain:
        report.aim(
            f"ms to direct, {home}", report.value(home, f"{TOM}_direct"), lambda left, right: left <= right, 30.0
        )
    elif wire is not None and not wire.loss:
        for what, limit in (("connected", 120.0), ("direct", 300.0)):
            medians = [report.value(row, f"{TOM}_{what}") for row in plain]
            slowest = max((value for value in medians if value is not None), default=None)
            report.aim(f"ms to {what}, slowest of the plain pairs", slowest, lambda left, right: left <= right, limit)


async def nets(options: Options) -> Report:
    """The nets beside the matrix."""
    chosen = NETS[:2] if options.tiny else [net for net in NETS if options.wants(net.name)]
    if not chosen:
        return Report("nat-nets", "two nodes in odder nets", [], [], "", notes=["no net has that in its name"])
    return await measure("nat-nets", "two nodes in odder nets", chosen, None, options)


def _bench(name: str, title: str, wire: Wire | None) -> Bench:
    return Bench(name, title, functools.partial(matrix, name=name, title=title, wire=wire))


NEAR = _bench("nat", "16 pairs of NAT kinds", None)
DELAYED = _bench("nat-far", "16 pairs of NAT kinds, 10 ms one way on each uplink", FAR)
LOSING = _bench("nat-lossy", "16 pairs of NAT kinds, 10 ms one way and 2% loss on each uplink", LOSSY)
ODD = Bench("nat-nets", "one LAN, carriers, remapped ports, IPv6", nets)
