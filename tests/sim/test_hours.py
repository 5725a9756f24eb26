"""Simulated hours in which everything happens to the networks of two nodes; `weather.py` says what, and what must hold.

Whenever a relay connects both ends, traffic flows within 2 s and what the way itself takes, whoever of them sends;
without a relay the same for an end that can reach the other. Nothing is sent on idle connections, tables stay small,
packets are budgeted, and once the networks stay as they are both ends use a direct path if punching can find one.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.weather import Weather, an_hour

FEW, SHARD, SHARDS = 24, 125, 16
PACKETS = 20_000
"""Disco packets of one end in an hour with some twenty changes: mostly searching, once a second, in outages."""


def _live(seeds: range) -> None:
    seen: Counter[str] = Counter()
    for seed in seeds:
        weather = an_hour(seed)
        seen.update(weather.counts)
        for side in weather.sides:
            sent = side.node.sent
            assert sent["disco"] + sent["relayed disco"] + sent["opener"] < PACKETS, (seed, sent)
    # The hours were not fair weather: all of it happened, and both kinds of path were found in the end.
    assert {change.__name__ for change in Weather.CHANGES} <= set(seen)
    assert seen["settled direct"] > seen["settled relay"] > 0


def test_a_few_hours_of_everything() -> None:
    """The first hours of the many below."""
    _live(range(FEW))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_two_thousand_hours_of_everything(shard: int) -> None:
    """No hour of two thousand shows a stuck state; a failure names the seed that repeats it."""
    start = FEW + shard * SHARD
    _live(range(start, start + SHARD))
