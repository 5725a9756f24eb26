"""What the report shows is what the records say."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_campaign.core.records import EnduranceRolling, PathSpan, PhaseResult
from tom_campaign.core.scenario import KINDS
from tom_campaign.report.plots import Strip, cut_spans, distribution, nice_ticks
from tom_campaign.report.views import (
    COUNTED,
    Cell,
    heat_maps,
    lossy,
    moments,
    path_times,
    times_to_direct,
    times_to_find,
)

NO_RTT = dict.fromkeys([f"rtt_{name}_ms" for name in ("min", "avg", "max", "p50", "p95", "p99")])


def result(dialer: str, target: str, **fields: object) -> PhaseResult:
    """A step between nodes that are called after their NATs."""
    values: dict[str, object] = {
        **NO_RTT,
        "campaign": "x",
        "at": 0.0,
        "phase": "connect",
        "kind": "connect",
        "dialer": dialer,
        "target": target,
        "dialer_nat": dialer,
        "target_nat": target,
        "path_kind": "direct",
        "sent": 1,
        "received": 1,
        "reconnections": 0,
        "elapsed_s": 1.0,
        "verdict": "PASS",
        **fields,
    }
    values |= {"lost": 0, "loss_pct": 0.0, "step": f"{values['phase']}/{dialer}>{target}/1"}
    return PhaseResult(**values)  # type: ignore[arg-type]


def test_a_heat_map_counts_each_pair_of_nats() -> None:
    """Rows and columns are the NAT kinds in their order of openness; a pair that was not measured has no cell."""
    results = [
        result("strict", "open"),
        result("strict", "open", received=0),
        result("none", "open", sent=4, received=4),
    ]
    (found,) = heat_maps(results)
    assert (found.phase, list(found.columns)) == ("connect", ["open"])
    (first, (none,)), (second, (strict,)) = found.rows
    assert (first, second) == ("none", "strict") and none is not None and strict is not None
    assert (strict.received, strict.sent, strict.pct) == (1, 2, 50)
    assert 0.09 < strict.low < 0.10 and 0.90 < strict.high < 0.91
    (wide,) = heat_maps([result("none", "open"), result("open", "none")])
    assert [[cell is None for cell in cells] for _, cells in wide.rows] == [[True, False], [False, True]]


@pytest.mark.parametrize(
    ("sent", "received", "shade"), [(1, 1, 5), (100, 96, 4), (100, 95, 3), (100, 50, 2), (100, 1, 0), (5, 0, 0)]
)
def test_shades_follow_the_share(sent: int, received: int, shade: int) -> None:
    """The best shade is for no loss alone, the next for what would be WARN."""
    assert Cell(sent, received, 0, 1).shade == shade


def test_times_to_direct_are_those_of_dials() -> None:
    """Dials that never went direct are counted, not timed; other phases have no part."""
    results = [result("open", "open", direct_s=0.1), result("open", "strict"), result("open", "open", direct_s=0.3)]
    results.append(result("open", "open", kind="ping", phase="ping"))
    everything, open_open, open_strict = times_to_direct(results)
    assert (everything.samples, everything.missing) == ([100.0, 300.0], 1)
    assert open_open.statistics.p50_ms == 100 and (open_strict.samples, open_strict.missing) == ([], 1)
    assert times_to_direct([]) == []


def test_times_to_find_are_those_of_lookups() -> None:
    """Look-ups in vain are counted; with several sources each has its own line."""
    lookups = {"kind": "discovery", "phase": "discovery"}
    results = [result("open", "open", discovery_source="dht", samples_ms=(5.0,), **lookups)]
    assert [times.name for times in times_to_find(results)] == ["all"]
    results.append(result("open", "open", discovery_source="pkarr", samples_ms=(9.0,), **lookups))
    results.append(result("open", "open", received=0, **lookups))
    everything, dht, pkarr = times_to_find(results)
    assert (everything.missing, dht.samples, pkarr.samples) == (1, [5.0], [9.0])


def spans(*pairs: tuple[float, str]) -> tuple[PathSpan, ...]:
    return tuple(PathSpan(at_s=at, path_kind=kind) for at, kind in pairs)


def test_paths_are_cut_into_seconds() -> None:
    """The seconds of each kind add up to the step's, what comes before the first path is none."""
    results = [result("open", "open", paths=spans((0.5, "relay"), (2.0, "direct")), elapsed_s=5.0)]
    (found,), left_out = path_times(results)
    assert (found.none, found.relay, found.direct, found.changes, left_out) == (0.5, 1.5, 3.0, 1, 0)
    assert cut_spans(found.strip) == [("none", 0.0, 0.5), ("relay", 0.5, 2.0), ("direct", 2.0, 5.0)]


def test_the_liveliest_paths_are_drawn() -> None:
    """Of many steps those are drawn whose path changed most, and the others are counted."""
    calm = [result("open", "open", paths=spans((0, "direct"))) for _ in range(60)]
    found, left_out = path_times([*calm, result("none", "open", paths=spans((0, "relay"), (0.5, "direct")))])
    assert len(found) == 40 and left_out == 21 and found[-1].changes == 1


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["direct", "relay", "none"])), max_size=20), st.floats(0, 200)
)
def test_spans_cover_a_strip_without_a_gap(points: list[tuple[float, str]], more: float) -> None:
    """Whatever the records say, spans follow each other, and none is longer than the step."""
    ordered = sorted(points)
    end = (ordered[-1][0] if ordered else 0) + more
    found = cut_spans(Strip("x", spans(*ordered), end))
    for (_, _, before), (_, begin, _) in itertools.pairwise(found):
        assert begin == pytest.approx(before)
    if found:
        assert found[0][1] == 0 and found[-1][2] <= end


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=100))
def test_a_distribution_ends_at_all(samples: list[float]) -> None:
    """The steps rise from nothing at the least to all at the greatest sample."""
    points = distribution(samples)
    assert points[0] == (min(samples), 0) and points[-1] == (max(samples), 1)
    assert points == sorted(points)


@given(st.floats(1e-6, 1e9))
def test_ticks_are_round_and_enough(top: float) -> None:
    """They begin at 0, reach the top, are evenly spaced, and few."""
    ticks = nice_ticks(top)
    assert ticks[0] == 0 and ticks[-1] >= top * 0.99 and 3 <= len(ticks) <= 8
    assert all(later - earlier == pytest.approx(ticks[1], rel=1e-3) for earlier, later in itertools.pairwise(ticks))


def test_windows_of_all_pairs_are_put_together() -> None:
    """Windows with the same number are one moment: losses add up, the median is that of medians."""

    def window(step: str, elapsed: float, sent: int, received: int, p50: float | None) -> EnduranceRolling:
        values = {**NO_RTT, "rtt_p50_ms": p50, "rtt_p95_ms": p50}
        return EnduranceRolling(
            **values,  # type: ignore[arg-type]
            campaign="x",
            at=0.0,
            step=step,
            phase="long",
            kind="endurance",
            dialer="a",
            target="b",
            dialer_nat="open",
            target_nat="open",
            path_kind="direct",
            sent=sent,
            received=received,
            lost=sent - received,
            loss_pct=0.0,
            reconnections=0,
            elapsed_s=elapsed,
            window_s=10.0,
            total_sent=sent,
            total_received=received,
        )

    windows = [window("a", 10.1, 10, 10, 5.0), window("a", 20.0, 10, 9, 7.0), window("b", 9.9, 10, 5, 1.0)]
    first, second = moments(windows)
    assert (first.elapsed_s, first.sent, first.received, first.p50_ms, first.p95_ms) == (10.1, 20, 15, 5.0, 5.0)
    assert (second.elapsed_s, second.loss_pct) == (20, 10.0)


def test_the_worst_steps_come_first() -> None:
    """Steps without a loss are not listed; the others by their loss."""
    worst = attrs.evolve(result("open", "strict", verdict="FAIL"), loss_pct=90.0)
    found, more = lossy([result("open", "open", verdict="WARN"), worst, result("none", "none")])
    assert [each.target for each in found] == ["strict", "open"] and more == 0


def test_every_kind_of_phase_is_explained() -> None:
    """The report says in words what was counted, whatever the phase."""
    assert COUNTED.keys() == set(KINDS)
