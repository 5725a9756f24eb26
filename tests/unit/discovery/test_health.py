"""What is remembered of a source, and what follows from it."""

from __future__ import annotations

import pytest

from tom_connect.discovery.health import (
    BREAK_AFTER,
    BREAK_FOR,
    LONGEST_HEDGE,
    MARGIN,
    SHORTEST_HEDGE,
    SourceCounts,
    SourceHealth,
    hedge,
)


def fail(health: SourceHealth, times: int, now: float) -> None:
    for _ in range(times):
        health.ask(now)
        health.failed(now)


def test_a_source_that_fails_again_and_again_is_left_out_for_a_while() -> None:
    """After four failures in a row it is left out; after the pause one trial is made, and a failed one doubles it."""
    health = SourceHealth()
    fail(health, BREAK_AFTER - 1, 100.0)
    assert health.left_out_for(100.0) == 0
    fail(health, 1, 100.0)
    assert health.left_out_for(100.0) == BREAK_FOR[0]
    after = 100.0 + BREAK_FOR[0]
    assert health.left_out_for(after) == 0
    health.ask(after)
    assert health.left_out_for(after) > 0, "a second look-up makes no second trial"
    health.failed(after)
    assert health.left_out_for(after) == 2 * BREAK_FOR[0]
    fail(health, 20, after)
    assert health.left_out_for(after) == BREAK_FOR[1]


@pytest.mark.parametrize("works", ["answered", "had_nothing"])
def test_one_that_works_again_is_forgiven(works: str) -> None:
    """An answer, or word that it knows nothing, ends the exclusion and the count of failures."""
    health = SourceHealth()
    fail(health, BREAK_AFTER, 0.0)
    health.ask(50.0)
    if works == "answered":
        health.answered(0.1, first=True)
    else:
        health.had_nothing()
    assert health.left_out_for(50.0) == 0
    assert health.failures == 0


def test_the_usual_latency_is_that_of_the_slower_answers_of_late() -> None:
    """One outlier in ten is no rule, and what was long ago is forgotten."""
    health = SourceHealth()
    assert health.usual is None
    for _ in range(40):
        health.answered(5.0, first=True)
    for number in range(32):
        health.answered(9.0 if number % 16 == 0 else 0.2, first=False)
    assert health.usual == 0.2
    assert (health.counts.found, health.counts.first) == (72, 40)


def taking(*seconds: float) -> SourceHealth:
    health = SourceHealth()
    for each in seconds:
        health.answered(each, first=False)
    return health


def test_a_hedge_follows_what_earlier_sources_take() -> None:
    """It waits a little longer than they usually do, within bounds; a fixed one and one without experience stay."""
    new = SourceHealth()
    assert hedge(0.5, new, [], fixed=False) == 0.5
    assert hedge(0.5, new, [SourceHealth()], fixed=False) == 0.5
    assert hedge(0.5, new, [taking(0.2), taking(0.3)], fixed=False) == pytest.approx(MARGIN * 0.2)
    assert hedge(0.5, new, [taking(0.001)], fixed=False) == SHORTEST_HEDGE
    assert hedge(0.5, new, [taking(60.0)], fixed=False) == LONGEST_HEDGE * 0.5
    assert hedge(5.0, new, [taking(0.2)], fixed=True) == 5.0
    assert hedge(0.0, new, [taking(0.2)], fixed=False) == 0.0


def test_a_source_that_is_quicker_waits_for_nobody() -> None:
    """Half of the time counts, not one outlier; one that is about as quick waits, and a fixed one always does."""
    quick = taking(0.03, 0.03, 9.0)
    assert hedge(0.5, quick, [taking(0.3)], fixed=False) == 0.0
    assert hedge(0.5, quick, [SourceHealth()], fixed=False) == 0.0, "the earlier one has never answered"
    assert hedge(0.5, quick, [taking(0.3), taking(0.032)], fixed=False) == SHORTEST_HEDGE
    assert hedge(5.0, quick, [taking(0.3)], fixed=True) == 5.0


@pytest.mark.parametrize("works", ["answered", "had_nothing", "forgive"])
def test_one_that_was_silent_in_its_time_may_be_dead(works: str) -> None:
    """A look-up that others ended before its usual time says nothing of it; it is so until it says something."""
    health = taking(0.2)
    health.outrun(0.1)
    assert not health.silent
    health.outrun(0.3)
    assert health.silent
    if works == "answered":
        health.answered(0.1, first=False)
    else:
        getattr(health, works)()
    assert not health.silent


def test_counts_add_up() -> None:
    """The counts of two runs are the sum of each."""
    one = SourceCounts(asked=5, found=3, first=2, nothing=1, failed=1)
    one.add(SourceCounts(asked=1, found=1, first=1))
    assert one == SourceCounts(asked=6, found=4, first=3, nothing=1, failed=1)
