"""What the report shows, computed from the records."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from tom_campaign.core.records import EnduranceRolling, PhaseResult
from tom_campaign.core.scenario import NAT_KINDS
from tom_campaign.core.statistics import RttStatistics, loss_pct, rtt_statistics, success_interval
from tom_campaign.report.plots import Strip, cut_spans

MAX_STRIPS: Final = 40
"""Steps whose paths are drawn: of more of them, those whose path changed most."""
MAX_FAILED: Final = 200
"""Steps with losses that are listed."""


COUNTED: Final[Mapping[str, str]] = {
    "discovery": "look-ups that found the node",
    "connect": "dials that connected",
    "ping": "datagrams that came back",
    "burst": "datagrams that came back, sent fast",
    "transfer": "blocks of 64 KiB that arrived intact",
    "failover": "messages that came back while the network changed",
    "endurance": "datagrams that came back, for a long time",
}
"""What the success of each kind of phase is, for people who don't know the scenario."""


@attrs.frozen
class Cell:
    """A pair of NAT kinds in a heat map."""

    sent: int
    received: int
    low: float
    high: float

    @property
    def pct(self) -> float:
        """Percent of success."""
        return 100 - loss_pct(self.sent, self.received)

    @property
    def shade(self) -> int:
        """0, where nothing succeeded, to 5, where all did; 4 from 95%, above which a verdict is WARN."""
        if self.received >= self.sent:
            return 5
        return 4 if self.pct > 95 else min(3, int(self.pct // 25))


@attrs.frozen
class HeatMap:
    """Success by NAT pair of one phase: a row for each NAT of a dialer, a column for each of a target."""

    phase: str
    kind: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]


@attrs.frozen
class Times:
    """Times of a group of steps, milliseconds; `missing` steps have none."""

    name: str
    samples: Sequence[float]
    statistics: RttStatistics
    missing: int


@attrs.frozen
class PathTimes:
    """How long each kind of path carried the traffic of a step, seconds."""

    strip: Strip
    direct: float
    relay: float
    none: float
    changes: int


def _nat_order(kinds: Iterable[str]) -> list[str]:
    order = {kind: number for number, kind in enumerate(NAT_KINDS)}
    return sorted(set(kinds), key=lambda kind: (order.get(kind, len(order)), kind))


def heat_maps(results: Sequence[PhaseResult]) -> list[HeatMap]:
    """One for each phase in which anything was measured."""
    maps = []
    for phase in dict.fromkeys(result.phase for result in results):
        mine = [result for result in results if result.phase == phase]
        rows, columns = _nat_order(r.dialer_nat for r in mine), _nat_order(r.target_nat for r in mine)
        cells = [(row, [_cell(mine, row, column) for column in columns]) for row in rows]
        maps.append(HeatMap(phase, mine[0].kind, columns, cells))
    return maps


def _cell(results: Sequence[PhaseResult], row: str, column: str) -> Cell | None:
    mine = [result for result in results if (result.dialer_nat, result.target_nat) == (row, column)]
    if not mine:
        return None
    sent, received = sum(result.sent for result in mine), sum(result.received for result in mine)
    return Cell(sent, received, *success_interval(received, sent))


def times_to_direct(results: Sequence[PhaseResult]) -> list[Times]:
    """All dials together, then each NAT pair with at least one."""
    dials = [result for result in results if result.kind == "connect"]
    if not dials:
        return []
    found = [_times("all", dials)]
    pairs = itertools.product(_nat_order(r.dialer_nat for r in dials), _nat_order(r.target_nat for r in dials))
    for dialer, target in pairs:
        mine = [result for result in dials if (result.dialer_nat, result.target_nat) == (dialer, target)]
        if mine:
            found.append(_times(f"{dialer} to {target}", mine))
    return found


def _times(name: str, dials: Sequence[PhaseResult]) -> Times:
    samples = [dial.direct_s * 1000 for dial in dials if dial.direct_s is not None]
    return Times(name, samples, rtt_statistics(samples), len(dials) - len(samples))


def times_to_find(results: Sequence[PhaseResult]) -> list[Times]:
    """All look-ups, then those of each source."""
    lookups = [result for result in results if result.kind == "discovery"]
    if not lookups:
        return []
    lost = sum(result.received == 0 for result in lookups)
    samples = [sample for result in lookups for sample in result.samples_ms]
    found = [Times("all", samples, rtt_statistics(samples), lost)]
    sources = sorted({result.discovery_source for result in lookups if result.discovery_source is not None})
    for source in sources if len(sources) > 1 else ():
        mine = [sample for result in lookups if result.discovery_source == source for sample in result.samples_ms]
        found.append(Times(source, mine, rtt_statistics(mine), 0))
    return found


def path_times(results: Sequence[PhaseResult]) -> tuple[list[PathTimes], int]:
    """The steps whose paths are drawn, and how many are left out."""
    found = []
    for result in results:
        if not result.paths:
            continue
        strip = Strip(result.step, result.paths, max(result.elapsed_s, result.paths[-1].at_s))
        spans = cut_spans(strip)
        seconds = {
            kind: sum(end - begin for its, begin, end in spans if its == kind) for kind in ("direct", "relay", "none")
        }
        found.append(PathTimes(strip, seconds["direct"], seconds["relay"], seconds["none"], len(result.paths) - 1))
    liveliest = sorted(range(len(found)), key=lambda index: -found[index].changes)[:MAX_STRIPS]
    return [found[index] for index in sorted(liveliest)], len(found) - len(liveliest)


@attrs.frozen
class Moment:
    """All steps of an endurance phase in the windows that have the same number."""

    phase: str
    elapsed_s: float
    sent: int
    received: int
    loss_pct: float
    p50_ms: float | None
    p95_ms: float | None
    reconnections: int


def moments(rolling: Sequence[EnduranceRolling]) -> list[Moment]:
    """The windows of each endurance phase in order of time; median of medians, and the worst 95th percentile."""
    groups: dict[tuple[str, int], list[EnduranceRolling]] = {}
    counts: Counter[str] = Counter()
    for record in rolling:
        counts[record.step] += 1
        groups.setdefault((record.phase, counts[record.step]), []).append(record)
    found = []
    for (phase, _number), records in sorted(groups.items()):
        sent, received = sum(r.sent for r in records), sum(r.received for r in records)
        medians = sorted(r.rtt_p50_ms for r in records if r.rtt_p50_ms is not None)
        found.append(
            Moment(
                phase,
                max(record.elapsed_s for record in records),
                sent,
                received,
                loss_pct(sent, received),
                medians[len(medians) // 2] if medians else None,
                max((r.rtt_p95_ms for r in records if r.rtt_p95_ms is not None), default=None),
                sum(r.reconnections for r in records),
            )
        )
    return found


def lossy(results: Sequence[PhaseResult]) -> tuple[list[PhaseResult], int]:
    """Steps with losses, the worst first, and how many are left out."""
    found = sorted((r for r in results if r.verdict != "PASS"), key=lambda r: (-r.loss_pct, r.step))
    return found[:MAX_FAILED], max(0, len(found) - MAX_FAILED)
