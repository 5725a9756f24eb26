"""`tom-connect resolve`: where a node is, by which source, and how old that is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from tom_connect.cli.options import FiniteFloat, Invocation, tom_command

if TYPE_CHECKING:
    from tom_connect.abc import FoundAddr
    from tom_connect.discovery import Lookup, SourceOutcome


TICKET = "ticket"
"""What a ticket is called among the sources."""


@tom_command("resolve")
@click.argument("node")
@click.option(
    "--timeout",
    type=FiniteFloat(min=0.0, min_open=True),
    default=15.0,
    show_default=True,
    help="Seconds after which sources that are still searching are left.",
)
async def command(run: Invocation, node: str, timeout: float) -> None:
    """Show where NODE is, without connecting: what each discovery source says, how old it is and how long it took.

    NODE is a node id or a ticket; what a ticket says is shown as that of a source, and as unsigned. Sources are asked
    as a dial asks them, the later ones after a moment; all are waited for.
    """
    import asyncio

    from tom_connect.abc import FoundAddr
    from tom_connect.cli.node import check_settings
    from tom_connect.discovery import SourceOutcome, merged
    from tom_connect.endpoint import Endpoint
    from tom_connect.exceptions import DiscoveryError
    from tom_connect.tickets import parse_target

    target = parse_target(node)
    node_id = target.node_id
    ticket = [] if target.is_empty() else [FoundAddr(target, TICKET)]
    async with Endpoint.bind(run.endpoint_config(identity="fresh")) as endpoint:
        check_settings(run, endpoint)
        run.output.note(f"Looking for {node_id}")
        for found in ticket:
            _tell_found(run, found, 0.0)
            count = len(target.direct_addrs) + len(target.relay_urls)
            _tell_outcome(run, SourceOutcome(TICKET, found=count, began=0.0, first=0.0, seconds=0.0))
        async with endpoint.look_up(node_id) as lookup:
            told: set[str] = set()
            try:
                async with asyncio.timeout(timeout):
                    await _follow(run, lookup, told)
            except TimeoutError:
                pass
            for outcome in lookup.outcomes:
                if outcome.source not in told:
                    _tell_outcome(run, outcome)
            if not lookup.outcomes and not ticket:
                raise DiscoveryError(
                    "no discovery plugin is in use: install one, such as pip install 'tom-connect[dht]'"
                )
            together = merged([*lookup.found, *ticket])
            if together is None and all(outcome.failure for outcome in lookup.outcomes):
                raise DiscoveryError(f"no source could be asked where {node_id.short()}… is: is the network up?")
            if together is None:
                raise DiscoveryError(f"no source knows where {node_id.short()}… is")
            _tell_merged(run, together)


async def _follow(run: Invocation, lookup: Lookup, told: set[str]) -> None:
    """Say what is found as it is found, and which sources are done."""
    seen = 0
    while True:
        for found in lookup.found[seen:]:
            _tell_found(run, found, lookup.elapsed)
        seen = len(lookup.found)
        for outcome in lookup.outcomes:
            if outcome.source not in told and outcome.done:
                told.add(outcome.source)
                _tell_outcome(run, outcome)
        if lookup.ended:
            return
        await lookup.moved()


def _tell_found(run: Invocation, found: FoundAddr, at: float) -> None:
    age = None if found.timestamp_us is None else time.time() - found.timestamp_us / 1e6
    run.output.event(
        "found",
        f"{found.source}, after {at:.2f} s: {_where(found)}, {_age(age)}",
        source=found.source,
        at=round(at, 4),
        age=None if age is None else round(age, 3),
        signed=found.timestamp_us is not None,
        direct_addrs=found.addr.direct_addrs,
        relay_urls=found.addr.relay_urls,
        user_data=found.addr.user_data,
    )


def _tell_outcome(run: Invocation, outcome: SourceOutcome) -> None:
    run.output.event(
        "source",
        f"  {outcome}",
        source=outcome.source,
        found=outcome.found,
        failure=outcome.failure,
        skipped=outcome.skipped,
        stale=outcome.stale,
        began=_rounded(outcome.began),
        first=_rounded(outcome.first),
        ended=_rounded(outcome.seconds),
    )


def _tell_merged(run: Invocation, merged: FoundAddr) -> None:
    from tom_connect.tickets import encode_ticket

    run.output.event(
        "resolved",
        f"Together: {_where(merged)}\n{encode_ticket(merged.addr)}",
        node_id=merged.addr.node_id,
        newest=merged.source,
        timestamp_us=merged.timestamp_us,
        direct_addrs=merged.addr.direct_addrs,
        relay_urls=merged.addr.relay_urls,
        user_data=merged.addr.user_data,
        ticket=encode_ticket(merged.addr),
    )


def _where(found: FoundAddr) -> str:
    return ", ".join(map(str, (*found.addr.direct_addrs, *found.addr.relay_urls))) or "no address"


def _age(age: float | None) -> str:
    if age is None:
        return "unsigned"
    if age < 0:
        return f"signed {-age:.0f} s from now: a clock is wrong"
    if age < 120:
        return f"signed {age:.0f} s ago"
    return f"signed {age / 60:.0f} min ago" if age < 7200 else f"signed {age / 3600:.1f} h ago"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
