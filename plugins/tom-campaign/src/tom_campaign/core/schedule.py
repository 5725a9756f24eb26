"""The steps of a campaign, and which of them remain."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from tom_campaign.core.errors import ScenarioError
from tom_campaign.core.pairs import Pair, chosen_pairs
from tom_campaign.core.scenario import MAX_STEPS, Phase, Scenario


class TooManyStepsError(ScenarioError):
    """A phase, by its number from 0, has more steps than a campaign may have together with those before it."""

    def __init__(self, phase: int) -> None:
        super().__init__(f"more than {MAX_STEPS:,} measurements are too many; sample the pairs, or repeat less")
        self.phase = phase


@attrs.frozen
class Step:
    """One phase done to one pair, for the `repeat`-th time."""

    phase: Phase
    pair: Pair
    repeat: int = 1

    @property
    def id(self) -> str:
        """What names it in records: `PHASE/DIALER>TARGET/REPEAT`."""
        return f"{self.phase.name}/{self.pair}/{self.repeat}"


def steps_of(scenario: Scenario) -> tuple[tuple[Step, ...], ...]:
    """The steps of each phase, in order. Raises TooManyStepsError."""
    phases: list[tuple[Step, ...]] = []
    total = 0
    for phase in scenario.phases:
        pairs = chosen_pairs(scenario, phase.pairs, published=phase.kind == "discovery")
        repeats = phase.parameters.get("repeat", 1)
        total += repeats * len(pairs)
        if total > MAX_STEPS:
            raise TooManyStepsError(len(phases))
        phases.append(tuple(Step(phase, pair, number) for number in range(1, repeats + 1) for pair in pairs))
    return tuple(phases)


def remaining(steps: Sequence[Step], done: Collection[str]) -> tuple[Step, ...]:
    """The steps that no record tells of."""
    return tuple(step for step in steps if step.id not in done)


def seconds_at_least(scenario: Scenario) -> float:
    """Seconds that the phases take which last a given time, if nothing else took any."""
    total = 0.0
    for phase, steps in zip(scenario.phases, steps_of(scenario), strict=True):
        values = phase.parameters
        each = values.get("duration", 0.0)
        if phase.kind == "ping":
            each = values["count"] * values["interval"]
        elif phase.kind == "burst":
            each = values["count"] / values["rate"]
        total += each * len(steps) / scenario.jobs
    return total
