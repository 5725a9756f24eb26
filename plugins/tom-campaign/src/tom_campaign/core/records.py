"""The records of a campaign: one JSON object a line, each with its kind in `record`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from tom_campaign.core.errors import RecordFileError
from tom_campaign.core.statistics import Verdict
from tom_campaign.core.typed import MistypedError, typed

__all__ = [
    "CampaignStarted",
    "CampaignSummary",
    "EnduranceRolling",
    "NodeInfo",
    "PathSpan",
    "PhaseResult",
    "PhaseSummary",
    "decoded",
]

FORMAT: Final = 1
"""Version of the records."""
MAX_LINE: Final = 256 * 1024
"""Bytes of a line; a longer one is no record of ours."""


@attrs.frozen(kw_only=True)
class PathSpan:
    """From when on traffic took a kind of path."""

    at_s: float
    """Seconds since the step began."""
    path_kind: str
    """`direct`, `relay`, or `none` while no path answered."""


@attrs.frozen(kw_only=True)
class NodeInfo:
    """One node of a campaign."""

    node_id: str
    """Its public key."""
    nat: str
    """What stands before it: a NAT kind, `local` or `remote`."""
    version: str
    """Of tom-connect there."""
    plugins: tuple[str, ...]
    """In use there, each with its version."""
    published: int | None
    """How many DHT nodes or servers had its address when the phases began; None where nobody waited for that."""
    problem: str | None = None
    """Why it was not ready."""


@attrs.frozen(kw_only=True)
class CampaignStarted:
    """A campaign began, or went on; the first record of a file."""

    record: Literal["campaign_started"] = "campaign_started"
    """The kind of record."""
    format: int = FORMAT
    """Version of the records."""
    campaign: str
    """Name of the scenario."""
    description: str
    """What the scenario says of itself."""
    digest: str
    """SHA-256 of the scenario's file, in hex."""
    at: float
    """Seconds since 1970."""
    seed: int
    """What pairs and losses were drawn with."""
    version: str
    """Of tom-campaign."""
    python: str
    """Of the machine that ran the campaign."""
    system: str
    """Of the same machine."""
    find: str
    """How nodes were dialed: by `id` or by `ticket`."""
    dht_nodes: int
    """Nodes of the campaign's own DHT."""
    relays: int
    """Relays of the campaign's own."""
    nodes: dict[str, NodeInfo]
    """The population, by name."""
    phases: tuple[str, ...]
    """Names of the phases."""
    steps: int
    """Measurements in all."""
    resumed: bool
    """Whether earlier records come before it."""


@attrs.frozen(kw_only=True)
class _Figures:
    sent: int
    """Look-ups, dials, messages or blocks."""
    received: int
    """Those found, connected, answered or verified."""
    lost: int
    """The others."""
    loss_pct: float
    """Percent lost; 100 where nothing could be sent."""
    rtt_min_ms: float | None
    """Milliseconds: of a look-up, of a dial, or there and back; None where nothing came back."""
    rtt_avg_ms: float | None
    """Mean."""
    rtt_max_ms: float | None
    """Longest."""
    rtt_p50_ms: float | None
    """Median (nearest rank)."""
    rtt_p95_ms: float | None
    """95th percentile."""
    rtt_p99_ms: float | None
    """99th percentile."""
    reconnections: int
    """How often a connection that had been lost was made anew."""


@attrs.frozen(kw_only=True)
class _OfStep(_Figures):
    campaign: str
    """Name of the scenario."""
    at: float
    """Seconds since 1970."""
    step: str
    """`PHASE/DIALER>TARGET/REPEAT`, once in a campaign."""
    phase: str
    """Name of the phase."""
    kind: str
    """Kind of the phase."""
    dialer: str
    """Name of the node that looks up, dials and sends."""
    target: str
    """Name of the other one."""
    dialer_nat: str
    """What stands before the dialer."""
    target_nat: str
    """What stands before the target."""
    path_kind: str
    """Path at the end: `direct`, `relay` or `none`."""


@attrs.frozen(kw_only=True)
class PhaseResult(_OfStep):
    """One phase was done to one pair."""

    record: Literal["phase_result"] = "phase_result"
    """The kind of record."""
    elapsed_s: float
    """Seconds that the step took."""
    verdict: Verdict
    """PASS with no loss, WARN under 5%, FAIL else."""
    discovery_source: str | None = None
    """Which source first told where the target is, when it was looked up or last dialed, if it was."""
    direct_s: float | None = None
    """Seconds from the dial until traffic went directly; None if it did not."""
    why_relayed: str | None = None
    """Why there was no direct path in the end."""
    longest_gap_ms: float | None = None
    """Longest time without any answer."""
    bytes: int | None = None
    """Bytes that were transferred and verified."""
    bytes_per_s: float | None = None
    """Their rate."""
    network_event: str | None = None
    """What was done to the network."""
    paths: tuple[PathSpan, ...] = ()
    """Which kinds of path carried the traffic."""
    samples_ms: tuple[float, ...] = ()
    """Round trips in ascending order, of more than 200 so many that stand for all."""
    error: str | None = None
    """What went wrong, in words."""


@attrs.frozen(kw_only=True)
class EnduranceRolling(_OfStep):
    """The last window of an endurance phase."""

    record: Literal["endurance_rolling"] = "endurance_rolling"
    """The kind of record."""
    elapsed_s: float
    """Seconds since the step began."""
    window_s: float
    """Seconds that the figures are of."""
    total_sent: int
    """Messages since the step began."""
    total_received: int
    """Answers since the step began."""
    discovery_source: str | None = None
    """Which source first told where the target is, when it was last dialed."""


@attrs.frozen(kw_only=True)
class PhaseSummary(_Figures):
    """All steps of a phase together."""

    phase: str
    """Its name."""
    kind: str
    """Its kind."""
    judged: bool
    """Whether it counts for the campaign's verdict."""
    verdict: Verdict
    """PASS with no loss, WARN under 5%, FAIL else."""
    steps: int
    """Steps that the scenario has."""
    done: int
    """Steps that were done."""
    failed_steps: int
    """Steps in which nothing was received."""
    success_rate: float
    """Share of what was sent that was received, 0 to 1."""
    success_low: float
    """Lower end of the 95% interval of confidence (Wilson)."""
    success_high: float
    """Upper end."""
    direct: int
    """Steps that ended on a direct path."""
    elapsed_s: float
    """Seconds of all steps, added up."""


@attrs.frozen(kw_only=True)
class CampaignSummary(_Figures):
    """What came of a campaign; the last record of a file. Figures are those of the judged phases together."""

    record: Literal["campaign_summary"] = "campaign_summary"
    """The kind of record."""
    campaign: str
    """Name of the scenario."""
    at: float
    """Seconds since 1970."""
    verdict: Verdict
    """The worst of the judged phases; FAIL where steps are missing."""
    interrupted: bool
    """Whether it was ended before all steps were done."""
    steps: int
    """Steps that the scenario has."""
    done: int
    """Steps that were done."""
    elapsed_s: float
    """Seconds that the campaign took, all runs of one that went on together."""
    phases: tuple[PhaseSummary, ...]
    """Each phase."""
    discovery_sources: dict[str, int]
    """How many look-ups and dials of phases of these kinds each source was the first to answer."""
    path_kinds: dict[str, int]
    """How many steps ended on each kind of path, look-ups aside."""
    dead_nodes: tuple[str, ...]
    """Nodes that died."""


Record = CampaignStarted | PhaseResult | EnduranceRolling | CampaignSummary
RECORDS: Final[Mapping[str, type[Any]]] = {
    "campaign_started": CampaignStarted,
    "phase_result": PhaseResult,
    "endurance_rolling": EnduranceRolling,
    "campaign_summary": CampaignSummary,
}
"""The kinds of record, by what stands in `record`."""


def encoded(record: Record) -> str:
    """The record as a line of JSON, with its end."""
    fields = attrs.asdict(record)
    ordered = {"record": fields.pop("record"), **fields}
    return json.dumps(ordered, allow_nan=False, separators=(",", ":")) + "\n"


def decoded(line: str) -> Record:
    """The record of a line; raises RecordFileError for one that is none, or has a wrong field."""
    if len(line) > MAX_LINE:
        raise RecordFileError(f"longer than {MAX_LINE} bytes")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise RecordFileError("not JSON, so this is no file of records") from None
    if not isinstance(fields, dict):
        raise RecordFileError("not a JSON object")
    kind = fields.get("record")
    if not isinstance(kind, str) or kind not in RECORDS:
        raise RecordFileError(f"record: {str(kind)[:40]!r} is no record of a campaign")
    try:
        record: Record = typed(RECORDS[kind], fields, kind)
    except MistypedError as exc:
        raise RecordFileError(str(exc)) from None
    if isinstance(record, CampaignStarted) and record.format != FORMAT:
        raise RecordFileError(f"format {record.format} is not known here, only {FORMAT}")
    return record
