"""Pairs and steps: the right ones, the same for the same seed, and not twice."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_campaign.core.errors import ScenarioError
from tom_campaign.core.pairs import chosen_pairs
from tom_campaign.core.reading import read_scenario
from tom_campaign.core.scenario import Group, PairChoice, Scenario
from tom_campaign.core.schedule import remaining, seconds_at_least, steps_of

TEXT = """
name = "x"
[[group]]
name = "a"
network = "natlab"
nat = "open"
count = 3
[[group]]
name = "b"
network = "natlab"
nat = "strict"
count = 2
published = false
[dht]
[[phase]]
kind = "discovery"
repeat = 2
[[phase]]
kind = "ping"
pairs = { choose = "nat", count = 2 }
"""


def scenario() -> Scenario:
    return read_scenario(TEXT.encode(), "x.toml")


def with_groups(*counts: int) -> Scenario:
    groups = tuple(Group(name=f"g{n}", network="natlab", count=count, nat="open") for n, count in enumerate(counts))
    return attrs.evolve(scenario(), groups=groups)


def test_all_pairs_are_each_ordered_pair_once() -> None:
    """Every node dials every other one, and nobody itself."""
    pairs = chosen_pairs(scenario(), PairChoice(choose="all"))
    assert len(pairs) == len(set(pairs)) == 5 * 4
    assert all(pair.dialer != pair.target for pair in pairs)


def test_nat_pairs_are_so_many_of_each_pair_of_kinds() -> None:
    """Each ordered pair of NAT kinds is there, with as many pairs of nodes as asked for, or as there are."""
    kinds = scenario().nat_kinds
    pairs = chosen_pairs(scenario(), PairChoice(choose="nat", count=4))
    counted = Counter((kinds[pair.dialer], kinds[pair.target]) for pair in pairs)
    assert counted == {("open", "open"): 4, ("open", "strict"): 4, ("strict", "open"): 4, ("strict", "strict"): 2}


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 50), st.integers(0, 5))
def test_a_sample_is_drawn_from_all_by_the_seed(counts: list[int], count: int, seed: int) -> None:
    """A sample has as many different pairs as asked for, or all; the same seed draws the same ones."""
    plan = attrs.evolve(with_groups(*counts), seed=seed)
    sample = chosen_pairs(plan, PairChoice(choose="sample", count=count))
    everything = set(chosen_pairs(plan, PairChoice(choose="all")))
    assert len(sample) == len(set(sample)) == min(count, len(everything)) and set(sample) <= everything
    assert sample == chosen_pairs(plan, PairChoice(choose="sample", count=count))


def test_another_seed_draws_other_pairs() -> None:
    """The seed decides."""
    plan = with_groups(10, 10)
    choice = PairChoice(choose="sample", count=20)
    assert chosen_pairs(plan, choice) != chosen_pairs(attrs.evolve(plan, seed=1), choice)


def test_nobody_looks_for_what_is_not_published() -> None:
    """Discovery has no target in a group that does not publish; other phases have."""
    discovery, ping = steps_of(scenario())
    assert {step.pair.target for step in discovery} == {"a-1", "a-2", "a-3"}
    assert {step.pair.dialer for step in discovery} == {"a-1", "a-2", "a-3", "b-1", "b-2"}
    assert {"b-1", "b-2"} & {step.pair.target for step in ping}


def test_steps_have_names_of_their_own() -> None:
    """No two steps share a name, repeats included; those done are not done again."""
    steps = [step for phase in steps_of(scenario()) for step in phase]
    names = [step.id for step in steps]
    assert len(set(names)) == len(names) and names[0].startswith("discovery/")
    left = remaining(steps, {names[0], names[-1], "of/another>phase/1"})
    assert [step.id for step in left] == names[1:-1]


def test_too_many_steps_are_refused() -> None:
    """A population squared, a thousand times over, is refused with advice."""
    text = TEXT.replace("count = 3", "count = 150").replace("repeat = 2", "repeat = 1000")
    with pytest.raises(ScenarioError, match="more than 100,000 measurements are too many; sample the pairs"):
        steps_of(read_scenario(text.encode(), "x.toml"))


def test_the_least_time_is_told() -> None:
    """Twenty pings a tenth of a second apart, to eight pairs, four at a time, take four seconds."""
    assert seconds_at_least(scenario()) == pytest.approx(20 * 0.1 * 8 / 4)
