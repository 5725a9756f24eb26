"""Percentiles, verdicts, intervals and windows, against values worked out elsewhere and against their definitions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_campaign.core.statistics import (
    MAX_SAMPLES,
    Rolling,
    RttStatistics,
    kept_samples,
    loss_pct,
    percentile,
    rtt_statistics,
    success_interval,
    verdict,
    worst,
)

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=300)


def test_percentiles_are_nearest_ranks() -> None:
    """Of 1 to 100 the p-th percentile is p; of one sample each is that one."""
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert rtt_statistics([7.0]) == RttStatistics(7, 7, 7, 7, 7, 7)
    assert rtt_statistics([]) == RttStatistics()


@given(SAMPLES, st.floats(0.001, 1))
def test_a_percentile_is_a_sample_that_covers_its_share(samples: list[float], share: float) -> None:
    """At least the share of samples is at or below it, and less than the share is strictly below."""
    ordered = sorted(samples)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(sample <= found for sample in ordered) >= share * len(ordered) - 1e-9
    assert sum(sample < found for sample in ordered) < share * len(ordered) + 1e-9


@given(SAMPLES)
def test_figures_are_ordered(samples: list[float]) -> None:
    """Minimum, median, 95th, 99th percentile and maximum do not cross, and the mean lies between the ends."""
    found = rtt_statistics(samples)
    assert found.min_ms is not None and found.max_ms is not None and found.avg_ms is not None
    assert found.p50_ms is not None and found.p95_ms is not None and found.p99_ms is not None
    assert found.min_ms <= found.p50_ms <= found.p95_ms <= found.p99_ms <= found.max_ms
    assert found.min_ms - 0.001 <= found.avg_ms <= found.max_ms + 0.001


@given(st.lists(st.floats(0, 1e6), max_size=2000))
def test_kept_samples_stand_for_all(samples: list[float]) -> None:
    """No more are kept than allowed, in order, with both ends; few are kept whole."""
    kept = kept_samples(samples)
    assert len(kept) == min(len(samples), MAX_SAMPLES) and list(kept) == sorted(kept)
    if samples:
        assert kept[0] == round(min(samples), 3) and kept[-1] == round(max(samples), 3)


@pytest.mark.parametrize(
    ("sent", "received", "expected"),
    [
        (1, 1, "PASS"),
        (100, 100, "PASS"),
        (100, 99, "WARN"),
        (1000, 951, "WARN"),
        (1000, 950, "FAIL"),
        (20, 19, "FAIL"),
        (1, 0, "FAIL"),
        (0, 0, "FAIL"),
        (10**9, 10**9 - 1, "WARN"),
    ],
)
def test_verdicts(sent: int, received: int, expected: str) -> None:
    """PASS with no loss, WARN below 5%, FAIL from 5% on and where nothing was sent."""
    assert verdict(sent, received) == expected
    assert (loss_pct(sent, received) < 5) == (expected != "FAIL")


def test_the_worst_verdict_wins() -> None:
    """One FAIL makes all of it FAIL, one WARN a WARN; of none it is PASS."""
    assert worst([]) == "PASS" and worst(["PASS", "WARN"]) == "WARN" and worst(["WARN", "FAIL", "PASS"]) == "FAIL"


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    # statsmodels 0.15.0: proportion_confint(successes, total, method="wilson")
    [
        (1, 1, 0.206549, 1),
        (12, 12, 0.757506, 1),
        (9, 16, 0.331786, 0.769013),
        (0, 10, 0, 0.277533),
        (1720, 1720, 0.997772, 1),
        (999, 1000, 0.994357, 0.999823),
    ],
)
def test_wilson_intervals(successes: int, total: int, low: float, high: float) -> None:
    """The bounds are those of another program."""
    found = success_interval(successes, total)
    assert found == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_an_interval_holds_the_rate(one: int, other: int) -> None:
    """The rate lies in its interval, which lies in 0 to 1; of nothing it is all of that."""
    successes, total = min(one, other), max(one, other)
    low, high = success_interval(successes, total)
    assert 0 <= low <= high <= 1
    if total:
        assert low - 1e-12 <= successes / total <= high + 1e-12
    else:
        assert (low, high) == (0, 1)


@given(st.lists(st.tuples(st.floats(0, 3), st.one_of(st.none(), st.floats(0, 100))), max_size=100), st.floats(0.1, 5))
def test_windows_lose_no_message(messages: list[tuple[float, float | None]], every: float) -> None:
    """Whatever the pace, each message is in exactly one window, and no window ends before its time."""
    rolling, now, sent, received = Rolling(every, 0.0), 0.0, 0, 0
    for pause, rtt in messages:
        now += pause
        rolling.add(rtt)
        due = rolling.due
        window = rolling.take(now)
        assert (window is not None) == (now >= due)
        if window is not None:
            sent, received = sent + window.sent, received + window.received
            assert rolling.due > now or math.isclose(rolling.due, now)
    last = rolling.take(rolling.due)
    assert last is not None
    assert sent + last.sent == len(messages) == rolling.total_sent
    assert received + last.received == sum(rtt is not None for _, rtt in messages) == rolling.total_received
