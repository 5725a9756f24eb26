"""`tom-connect campaign`: run a campaign, respond to one, show what came of one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import pathlib
from typing import TYPE_CHECKING, Any

import attrs
import click

from tom_connect.cli.options import FiniteFloat, Invocation, tom_command
from tom_connect.exceptions import InvalidInputError

if TYPE_CHECKING:
    from tom_campaign.core.records import CampaignSummary, PhaseResult, Record
    from tom_connect import Endpoint, EndpointConfig

LONG = 30.0
"""Seconds from which people are told how long a campaign will take."""
RELAY_WAIT = 5.0
"""Seconds that a responder waits for its relay before it says where it is."""


@click.group("campaign", epilog="A campaign that ends with PASS or WARN exits with 0, one that ends with FAIL with 1.")
def campaign() -> None:
    """Measure a population of nodes: discovery, connections, paths, loss, endurance."""


@tom_command("run", epilog="Exit codes: 0 PASS or WARN, 1 FAIL, 2 wrong usage or scenario, 130 interrupted.")
@click.argument("scenario")
@click.option(
    "--output",
    type=click.Path(path_type=pathlib.Path, dir_okay=False),
    help="File for the records; default: the scenario's name with .jsonl. One that is there is not overwritten.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=pathlib.Path, dir_okay=False),
    help="File of records to go on with: what was done is not done again.",
)
@click.option(
    "--report", type=click.Path(path_type=pathlib.Path, dir_okay=False), help="Also write the report, an HTML file."
)
async def run_command(
    run: Invocation,
    scenario: str,
    output: pathlib.Path | None,
    resume: pathlib.Path | None,
    report: pathlib.Path | None,
) -> None:
    """Run SCENARIO, a TOML file or the name of a shipped one such as v7-dht.

    Records are written as they come; Ctrl-C still writes the summary. PASS is without loss, WARN below 5%, FAIL else.
    """
    from tom_campaign.core.errors import CampaignFailedError
    from tom_campaign.core.records import CampaignSummary
    from tom_campaign.core.schedule import seconds_at_least
    from tom_campaign.networks.population import started
    from tom_campaign.recordfile import RecordWriter, resumed
    from tom_campaign.running import Campaign
    from tom_campaign.scenariofile import load_scenario

    if output is not None and resume is not None:
        raise click.UsageError("--output and --resume exclude each other: the records go on in the file of --resume")
    plan = load_scenario(scenario)
    if (seconds := seconds_at_least(plan)) >= LONG:
        run.output.note(f"It will take at least {datetime.timedelta(seconds=round(seconds))}")
    before = resumed(resume, plan) if resume is not None else None
    path = resume or output or pathlib.Path(f"{plan.name}.jsonl")
    if report is not None:
        _check_report(report, path, pathlib.Path(scenario))
    writer = RecordWriter(path, keep=before.whole if before is not None else None)

    def write(record: Record) -> None:
        writer.write(record)
        _say(run, record)
        if isinstance(record, CampaignSummary) and record.interrupted:
            # Now, as a second after Ctrl-C all ends, whatever is still to be cleaned up.
            instead = " instead of --output" if output is not None else ""
            run.output.note(f"To go on: the same command with --resume {path}{instead}")

    def controller() -> EndpointConfig:
        return run.endpoint_config(identity="kept")

    try:
        running = Campaign(
            plan,
            lambda: started(plan, controller, run.output.note),
            write,
            before,
        )
        summary = await running.run()
    finally:
        writer.close()
    run.output.note(f"Records: {path}")
    if report is not None:
        await asyncio.to_thread(_write_report, run, path, report)
    if summary.verdict == "FAIL":
        raise CampaignFailedError(_why_failed(summary))


def _check_report(report: pathlib.Path, *others: pathlib.Path) -> None:
    """Refuse a file for a report that can't be one; raises InvalidInputError before hours of measuring, not after."""
    if not report.parent.is_dir():
        raise InvalidInputError(f"{report}: there is no folder {report.parent}; make it, or name another")
    if report.resolve() in [other.resolve() for other in others]:
        raise InvalidInputError(f"{report}: the report would overwrite what it is made from; name another file")


def _why_failed(summary: CampaignSummary) -> str:
    reasons = [
        f"{phase.phase} lost {phase.lost} of {phase.sent} ({phase.loss_pct:g}%)"
        for phase in summary.phases
        if phase.judged and phase.verdict == "FAIL" and phase.done
    ]
    if summary.done < summary.steps:
        reasons.append(f"{summary.steps - summary.done} of {summary.steps} steps were not done")
    return f"the campaign's verdict is FAIL: {'; '.join(reasons)}"


def _say(run: Invocation, record: Record) -> None:
    from tom_campaign.core.records import CampaignStarted, CampaignSummary, PhaseResult

    fields: dict[str, Any] = attrs.asdict(record, recurse=True)
    name = fields.pop("record")
    text = None
    if isinstance(record, CampaignStarted):
        text = f"{record.campaign}: {len(record.nodes)} nodes, {record.steps} measurements"
    elif isinstance(record, PhaseResult) and record.verdict != "PASS":
        text = _result_text(record)
    elif isinstance(record, CampaignSummary):
        text = _summary_text(record)
    run.output.event(name, text, **fields)


def _result_text(result: PhaseResult) -> str:
    text = f"{result.verdict}  {result.step}: {result.received} of {result.sent}"
    return text + (f" ({result.error})" if result.error else "")


def _summary_text(summary: CampaignSummary) -> str:
    lines = []
    for phase in summary.phases:
        if not phase.done:
            lines.append(f"----  {phase.phase}: none of its {phase.steps} steps was done")
            continue
        rtt = "" if phase.rtt_p50_ms is None else f", median {phase.rtt_p50_ms:.1f} ms, p95 {phase.rtt_p95_ms:.1f} ms"
        lines.append(
            f"{phase.verdict}  {phase.phase}: {phase.received} of {phase.sent}, {100 * phase.success_rate:.2f}% "
            f"(95% confidence: {100 * phase.success_low:.2f} to {100 * phase.success_high:.2f}%){rtt}"
            + ("" if phase.done == phase.steps else f"; {phase.done} of {phase.steps} steps done")
            + ("" if phase.judged else "; not judged")
        )
    if summary.dead_nodes:
        lines.append(f"Died: {', '.join(summary.dead_nodes)}")
    state = "interrupted, " if summary.interrupted else ""
    lines.append(f"{summary.campaign}: {summary.verdict} ({state}{summary.done} of {summary.steps} steps done)")
    return "\n".join(lines)


def _write_report(run: Invocation, records: pathlib.Path, path: pathlib.Path) -> None:
    from tom_campaign.core.errors import RecordFileError
    from tom_campaign.recordfile import read_records
    from tom_campaign.report.page import report_page

    recorded = read_records(records)
    try:
        page = report_page(recorded)
    except RecordFileError as exc:
        raise RecordFileError(f"{records}: {exc}") from None
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise InvalidInputError(f"{path}: {exc.strerror or exc}") from None
    run.output.event("report", f"Report: {path}", file=path, bytes=len(page.encode()))


@tom_command("report")
@click.argument("records", type=click.Path(path_type=pathlib.Path, dir_okay=False))
@click.option(
    "--output",
    type=click.Path(path_type=pathlib.Path, dir_okay=False),
    help="HTML file; default: that of the records with .html.",
)
async def report_command(run: Invocation, records: pathlib.Path, output: pathlib.Path | None) -> None:
    """Make a report of RECORDS, a .jsonl file: one HTML file that needs nothing else."""
    path = output or records.with_suffix(".html")
    _check_report(path, records)
    await asyncio.to_thread(_write_report, run, records, path)


@tom_command("respond")
@click.option(
    "--allow",
    multiple=True,
    required=True,
    metavar="NODE_ID",
    help="Who may control this node: what `tom-connect id` shows where the campaign is run; repeatable.",
)
@click.option(
    "--max-seconds",
    type=FiniteFloat(min=1.0),
    default=3600.0,
    show_default=True,
    help="Seconds that one measurement may last.",
)
@click.option(
    "--max-mib",
    type=FiniteFloat(min=0.1),
    default=256.0,
    show_default=True,
    help="MiB of one measurement or connection.",
)
@click.option(
    "--max-rate", type=FiniteFloat(min=1.0), default=5000.0, show_default=True, help="Messages a second that are sent."
)
async def respond_command(
    run: Invocation, allow: tuple[str, ...], max_seconds: float, max_mib: float, max_rate: float
) -> None:
    """Be a node of campaigns that others run, until Ctrl-C.

    Controlled by the nodes of --allow only; does nothing for anybody else, and nothing beyond its limits.
    """
    from tom_campaign.nodes.limits import Limits
    from tom_campaign.nodes.responder import Responder
    from tom_campaign.nodes.worker import Worker, bound_with
    from tom_connect import Endpoint, NodeId, encode_ticket

    allowed = frozenset(map(NodeId.parse, allow))
    limits = Limits(max_seconds=max_seconds, max_mib=max_mib, max_rate=max_rate)
    config = bound_with(run.endpoint_config(), takes_control=True)
    async with Endpoint.bind(config) as endpoint:
        if endpoint.relays():
            await _at_a_relay(endpoint)
        ticket = encode_ticket(endpoint.node_addr())
        run.output.event(
            "responding",
            f"Responding as {endpoint.node_id}\nTicket: {ticket}",
            node_id=endpoint.node_id,
            ticket=ticket,
            controllers=sorted(map(str, allowed)),
        )
        worker = Worker(endpoint, limits)
        try:
            await Responder(worker, allowed).serve()
        finally:
            await worker.aclose()


async def _at_a_relay(endpoint: Endpoint) -> None:
    """Wait a little until we are reachable through a relay, so that the ticket says so."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RELAY_WAIT):
            async for addr in endpoint.watch_addr():
                if addr.relay_urls:
                    return


campaign.add_command(run_command)
campaign.add_command(respond_command)
campaign.add_command(report_command)
