"""Which ordered pairs of nodes are measured."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs

from tom_campaign.core.scenario import PairChoice, Scenario


@attrs.frozen(order=True)
class Pair:
    """One node dials or looks up another one."""

    dialer: str
    target: str

    def __str__(self) -> str:
        return f"{self.dialer}>{self.target}"


def chosen_pairs(scenario: Scenario, choice: PairChoice, *, published: bool = False) -> tuple[Pair, ...]:
    """The pairs of a choice, the same ones for the same seed, in an order that spreads them over the nodes.

    A sample has fewer pairs than asked for where there are not so many. `published`: with targets alone that can be
    looked up.
    """
    targets = scenario.published_names if published else frozenset(scenario.node_names)
    names = scenario.node_names
    rng = random.Random(f"{scenario.seed} {choice.choose} {choice.count}")
    if choice.choose == "nat":
        return _of_nat_pairs(names, targets, scenario.nat_kinds, choice.count, rng)
    pairs = [Pair(one, other) for one in names for other in names if one != other and other in targets]
    rng.shuffle(pairs)
    return tuple(pairs if choice.choose == "all" else pairs[: choice.count])


def _of_nat_pairs(
    names: tuple[str, ...], targets: frozenset[str], kinds: Mapping[str, str], count: int, rng: random.Random
) -> tuple[Pair, ...]:
    by_kind: dict[str, list[str]] = {}
    for name in names:
        by_kind.setdefault(kinds[name], []).append(name)
    found: list[Pair] = []
    for ones in by_kind.values():
        for others in by_kind.values():
            pairs = [Pair(a, b) for a in ones for b in others if a != b and b in targets]
            found += rng.sample(pairs, min(count, len(pairs)))
    rng.shuffle(found)
    return tuple(found)
