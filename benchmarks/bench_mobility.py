"""A live stream between two nodes behind moderate NATs while the network changes: how long it is silent."""

from __future__ import annotations

import asyncio
import importlib.util
import time

from benchmarks.report import Bench, Column, Options, Report, Row
from tests.interop.peers.process import PeerError
from tests.netns.mobility import OURS, SIDES, Gap, Side, World, measured, talking, worst
from tom_connect.testing.natlab import Lab, missing

TOM, IROH = "tom-connect", "iroh"
PROGRAMS = {TOM: OURS, IROH: "benchmarks.mobility.iroh_process"}
AIM = 2.0
"""Seconds of silence at most after connectivity is back."""
KILLED, RESTARTED = "relay_killed", "relay_restarted"
WORDS = {
    "nat_rebind": "NAT rebind",
    "new_public_ip": "new public IP",
    "another_router": "another router",
    "flap": "2 s flap",
    "udp_blocked": "UDP blocked",
    "asleep": "60 s sleep",
    KILLED: "spare relay killed",
    RESTARTED: "relay in use restarted",
}


async def happening(world: World, event: str, side: Side, asleep: float) -> dict[Side, Gap]:
    """Let one of the events happen at a side."""
    if event == KILLED:
        began = time.monotonic()
        world.relay.kill()
        await asyncio.sleep(3.0)  # as long as it takes to notice
        return await world.gaps(began, began)
    if event == RESTARTED:
        await asyncio.to_thread(world.ends[side].router.block_udp)
        await world.on("relay")
        await world.quiet_flow()
        began = time.monotonic()
        world.relay.kill()
        await asyncio.to_thread(world.relay.start)
        return await world.gaps(began, time.monotonic())
    return await measured(world, event, side, asleep=asleep)


async def mobility(options: Options) -> Report:
    """The silence that is left when connectivity is back, of the worse direction; the event on either side."""
    events = list(WORDS) if not options.tiny else ["another_router", KILLED]
    report = Report(
        "mobility",
        "moderate NATs, 10 ms from each to the internet, a record every 20 ms both ways; seconds of silence afterwards",
        [Column(event, WORDS[event], digits=2) for event in events],
        [Row(name) for name in PROGRAMS if name not in options.without],
        IROH,
        notes=[
            "the event is on the dialer's side in one run and on the other's in the next; medians of both",
            "a spare relay is killed beside a direct path; the one in use carries all, since UDP is blocked",
        ],
    )
    lacking = missing()
    for row in report.rows:
        if lacking:
            row.absent = f"a network lab needs {', '.join(lacking)}"
        elif row.name == IROH and importlib.util.find_spec("iroh") is None:
            row.absent = "not installed"
    for number in range(options.count(3)):
        for event in events:
            for side in SIDES[: options.pick(2, 1)]:
                for row in report.rows:
                    if row.absent is None:
                        await _sample(report, row, event, side, number, asleep=options.pick(60, 6))
    ours = [value for row in report.rows if row.name == TOM for values in row.samples.values() for value in values]
    report.aim("silent for at most 2 s, in the worst of all runs", max(ours, default=None), lambda a, b: a <= b, AIM)
    return report


async def _sample(report: Report, row: Row, event: str, side: Side, seed: int, *, asleep: float) -> None:
    where = f"{row.name}, {WORDS[event]} at the {side}"
    with await asyncio.to_thread(Lab, seed=seed) as lab:
        async with talking(lab, program=PROGRAMS[row.name]) as world:
            try:
                _longest, after = worst(await happening(world, event, side, asleep))
                row.add(**{event: after})
                await world.whole()
            except (AssertionError, PeerError) as exc:  # the connection is lost, or records are
                report.notes.append(f"{where}: {str(exc).splitlines()[0]}")


BENCH = Bench("mobility", "silence of a live stream while the network changes under it", mobility)
