"""`tom-connect doctor`: what the network lets us do, and what to do about the rest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from tom_connect.cli.options import FiniteFloat, Invocation, tom_command

if TYPE_CHECKING:
    from tom_connect.cli.diagnosis import Diagnosis
    from tom_connect.netreport.report import FamilyReport, NetReport

WAIT = 10.0
"""Seconds in which servers answer or are given up, relays connect, and the DHT is joined."""
ROUTER_WAIT = 5.0
"""Seconds at least where plugins ask our router: it is found by multicast, and may think for some seconds."""
_HEADINGS = {"works": "What works", "note": "Good to know", "fails": "What does not work"}
_DIAGNOSTIC_LINES = 12
"""Values that a plugin shows to people; the rest is in the JSON."""


@tom_command("doctor")
@click.option(
    "--wait", type=FiniteFloat(min=0.0), default=WAIT, show_default=True, help="Seconds that the examination may take."
)
async def command(run: Invocation, wait: float) -> None:
    """Examine the network: NAT, firewalls, relays, plugins; say what works, what doesn't, and what to do.

    It asks the configured relays, and what plugins know; where the DHT is in use, a stranger of its own looks this node
    up there. With --json it prints one object.
    """
    from tom_connect.cli.diagnosis import Finding, diagnose
    from tom_connect.cli.node import check_settings, relays_left_out
    from tom_connect.cli.serverless import ServerlessCheck, serverless_findings
    from tom_connect.endpoint import Endpoint

    async with Endpoint.bind(run.endpoint_config(identity="fresh")) as endpoint:
        check_settings(run, endpoint)
        run.output.note("Examining the network")
        wanted = bool(endpoint.relays())
        asks_routers = any(p.state == "loaded" and "tom_address_source" in p.hooks for p in endpoint.plugins)
        serverless = ServerlessCheck(endpoint)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait), asyncio.TaskGroup() as group:
                group.create_task(serverless.run(), name="a stranger's look-up")
                if asks_routers:
                    group.create_task(asyncio.sleep(ROUTER_WAIT), name="waiting for routers")
                async for report in endpoint.net_report():
                    if is_enough(report, relays_wanted=wanted):
                        break
        report = endpoint.net_report().value
        told = {name: dict(values) for name, values in endpoint.diagnostics().items()}
        plugins = endpoint.plugins
    probing = run.config.direct and not run.config.dht_only
    others_asked = any(p.state == "loaded" and "tom_datagram_protocol" in p.hooks for p in plugins)
    diagnosis = diagnose(
        report,
        relays_wanted=wanted,
        probing=probing,
        others_asked=others_asked,
        serverless=run.config.dht_only,
    )
    if left_out := relays_left_out(run):
        diagnosis = diagnosis.with_findings([Finding("note", f"{left_out}.")])
    diagnosis = diagnosis.with_findings(serverless_findings(serverless.report, diagnosis, wanted=run.config.dht_only))
    deprecated = run.host.deprecations(run.config.plugin_configs)
    diagnosis = diagnosis.with_findings(Finding("note", f"Plugin {name}: {why}.") for name, why in deprecated.items())
    if run.output.json:
        run.output.event(
            "doctor",
            nat={"ipv4": diagnosis.ipv4, "ipv6": diagnosis.ipv6},
            findings=diagnosis.findings,
            serverless=serverless.report,
            report=report,
            plugins=[{"name": p.name, "state": p.state, "reason": p.reason} for p in plugins],
            diagnostics=told,
        )
        return
    failed = [f"Plugin {p.name} is {p.state}: {p.reason}" for p in plugins if p.state not in ("loaded", "blocked")]
    run.output.event("doctor", _text(report, diagnosis, told, failed))


def is_enough(report: NetReport, *, relays_wanted: bool) -> bool:
    """Whether further waiting is unlikely to tell more."""
    if not report.complete or (relays_wanted and not all(relay.connected for relay in report.relays)):
        return False
    families = (report.ipv4, report.ipv6)
    if any(family.answers for family in families):
        return not any(_is_open(family) for family in families)
    return report.udp_blocked is True or any(family.confirmed for family in families)


def _is_open(family: FamilyReport) -> bool:
    """Whether a question about an IP version is still out."""
    from tom_connect.netreport.report import Filtering, Mapping

    if not family.reflexive:
        return False
    if family.nat and (family.hairpin is None and family.confirmed):
        return True
    return family.filtering is Filtering.UNKNOWN or family.mapping is Mapping.UNKNOWN


def _text(report: NetReport, diagnosis: Diagnosis, told: Mapping[str, Mapping[str, object]], failed: list[str]) -> str:
    lines = []
    if not report.complete:
        lines += ["The examination is not complete: more time (--wait) may tell more.", ""]
    for level, heading in _HEADINGS.items():
        found = [finding for finding in diagnosis.findings if finding.level == level]
        texts = [finding.text for finding in found] + (failed if level == "fails" else [])
        if texts:
            lines += [f"{heading}:", *(f"  - {text}" for text in texts), ""]
    advice = list(dict.fromkeys(finding.advice for finding in diagnosis.findings if finding.advice))
    if advice:
        lines += ["What to do:", *(f"  - {text}" for text in advice), ""]
    for name, values in told.items():
        shown = [f"  {key}: {_value(value)}" for key, value in list(values.items())[:_DIAGNOSTIC_LINES]]
        if shown:
            lines += [f"Plugin {name}:", *shown, ""]
    return "\n".join(lines).rstrip()


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "none"
    return str(value)
