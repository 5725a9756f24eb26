"""Results of steps, and what all of them come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from tom_campaign.core.records import CampaignSummary, PathSpan, PhaseResult, PhaseSummary
from tom_campaign.core.scenario import Phase, Scenario
from tom_campaign.core.schedule import Step
from tom_campaign.core.statistics import (
    RttStatistics,
    loss_pct,
    rtt_statistics,
    success_interval,
    verdict,
    worst,
)

_FINDING = frozenset({"discovery", "connect"})
"""Kinds of phases in which a node is looked for anew; others mostly use a connection that is there."""


@attrs.frozen(kw_only=True)
class Measured:
    """What a node says of one measurement. Raises ValueError for counts that can't be."""

    sent: int
    received: int
    rtt: RttStatistics = attrs.Factory(RttStatistics)
    samples_ms: tuple[float, ...] = ()
    reconnections: int = 0
    path_kind: str = "none"
    discovery_source: str | None = None
    direct_s: float | None = None
    why_relayed: str | None = None
    longest_gap_ms: float | None = None
    bytes: int | None = None
    bytes_per_s: float | None = None
    paths: tuple[PathSpan, ...] = ()
    error: str | None = None

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.received <= self.sent or self.reconnections < 0:
            raise ValueError(f"{self.received} of {self.sent} received, {self.reconnections} reconnections can't be")


def figures(sent: int, received: int, rtt: RttStatistics, reconnections: int) -> dict[str, Any]:
    """The fields that all records of results have."""
    return {
        "sent": sent,
        "received": received,
        "lost": sent - received,
        "loss_pct": loss_pct(sent, received),
        **{f"rtt_{name}": value for name, value in attrs.asdict(rtt).items()},
        "reconnections": reconnections,
    }


def phase_result(
    step: Step, measured: Measured, *, campaign: str, nats: Mapping[str, str], at: float, elapsed_s: float
) -> PhaseResult:
    """The record of a step; `at` in seconds since 1970."""
    event = step.phase.parameters.get("event")
    return PhaseResult(
        **of_step(step, campaign=campaign, nats=nats, at=at, path_kind=measured.path_kind),
        **figures(measured.sent, measured.received, measured.rtt, measured.reconnections),
        elapsed_s=round(elapsed_s, 4),
        verdict=verdict(measured.sent, measured.received),
        discovery_source=measured.discovery_source,
        direct_s=measured.direct_s,
        why_relayed=measured.why_relayed,
        longest_gap_ms=measured.longest_gap_ms,
        bytes=measured.bytes,
        bytes_per_s=measured.bytes_per_s,
        network_event=event,
        paths=measured.paths,
        samples_ms=measured.samples_ms,
        error=measured.error,
    )


def of_step(step: Step, *, campaign: str, nats: Mapping[str, str], at: float, path_kind: str) -> dict[str, Any]:
    """The fields that name a step in a record."""
    pair = step.pair
    return {
        "campaign": campaign,
        "at": round(at, 3),
        "step": step.id,
        "phase": step.phase.name,
        "kind": step.phase.kind,
        "dialer": pair.dialer,
        "target": pair.target,
        "dialer_nat": nats[pair.dialer],
        "target_nat": nats[pair.target],
        "path_kind": path_kind,
    }


def campaign_summary(
    scenario: Scenario,
    planned: Mapping[str, int],
    results: Sequence[PhaseResult],
    *,
    at: float,
    elapsed_s: float,
    interrupted: bool,
    dead_nodes: Iterable[str] = (),
) -> CampaignSummary:
    """What all results come to; `planned`: how many steps each phase has."""
    phases = tuple(
        _phase_summary(phase, planned[phase.name], [result for result in results if result.phase == phase.name])
        for phase in scenario.phases
    )
    judged = {phase.name for phase in scenario.phases if phase.judged}
    counted = [result for result in results if result.phase in judged]
    total = sum(planned.values())
    outcome = worst(phase.verdict for phase in phases if phase.judged)
    return CampaignSummary(
        **_together(counted),
        campaign=scenario.name,
        at=round(at, 3),
        verdict="FAIL" if len(results) < total else outcome,
        interrupted=interrupted,
        steps=total,
        done=len(results),
        elapsed_s=round(elapsed_s, 3),
        phases=phases,
        discovery_sources=dict(
            Counter(r.discovery_source for r in results if r.kind in _FINDING and r.discovery_source is not None)
        ),
        path_kinds=dict(Counter(result.path_kind for result in results if result.kind != "discovery")),
        dead_nodes=tuple(sorted(dead_nodes)),
    )


def _together(results: Sequence[PhaseResult]) -> dict[str, Any]:
    samples = [sample for result in results for sample in result.samples_ms]
    sent, received = sum(r.sent for r in results), sum(r.received for r in results)
    return figures(sent, received, rtt_statistics(samples), sum(r.reconnections for r in results))


def _phase_summary(phase: Phase, planned: int, results: Sequence[PhaseResult]) -> PhaseSummary:
    sent, received = sum(r.sent for r in results), sum(r.received for r in results)
    low, high = success_interval(received, sent)
    return PhaseSummary(
        **_together(results),
        phase=phase.name,
        kind=phase.kind,
        judged=phase.judged,
        verdict=verdict(sent, received),
        steps=planned,
        done=len(results),
        failed_steps=sum(result.received == 0 for result in results),
        success_rate=round(received / sent, 6) if sent else 0.0,
        success_low=round(low, 6),
        success_high=round(high, 6),
        direct=sum(result.path_kind == "direct" for result in results),
        elapsed_s=round(sum(result.elapsed_s for result in results), 3),
    )
