"""A live stream between two nodes behind moderate NATs while the network changes: how long it is silent."""

from __future__ import annotations

import asyncio
import time

from benchmarks.report import Bench, Column, Options, Report, Row
from tests.netns.mobility import EVENTS, SIDES, Gap, Side, World, measured, talking, worst
from tom_connect.testing.natlab import Lab, missing

AIM = 2.0
"""Seconds of silence at most after connectivity is back."""
WORDS = {
    "nat_rebind": "NAT rebind",
    "new_public_ip": "new public IP",
    "another_router": "another router",
    "flap": "2 s flap",
    "udp_blocked": "UDP blocked",
    "asleep": "asleep for 60 s",
}
KILLED, RESTARTED = "relay killed beside a direct path", "carrying relay killed and restarted"


async def happening(world: World, event: str, side: Side, asleep: float) -> dict[Side, Gap]:
    """Let one of the rows happen, and see that the stream came whole."""
    if event == KILLED:
        began = time.monotonic()
        world.relay.kill()
        await asyncio.sleep(3.0)
        gaps = await world.gaps(began, began)
    elif event == RESTARTED:
        await asyncio.to_thread(world.ends[side].router.block_udp)
        await world.on("relay")
        await world.quiet_flow()
        began = time.monotonic()
        world.relay.kill()
        await asyncio.to_thread(world.relay.start)
        gaps = await world.gaps(began, time.monotonic())
    else:
        gaps = await measured(world, event, side, asleep=asleep)
    await world.whole()
    return gaps


async def mobility(options: Options) -> Report:
    """The longest silence of either direction for each event, on either side, and what of it came after the event."""
    rounds = options.count(3)
    events = [*EVENTS, KILLED, RESTARTED] if not options.tiny else ["another_router", KILLED]
    names = {(event, side): f"{WORDS.get(event, event)}, {side}" for event in events for side in SIDES}
    names[KILLED, "dialer"] = KILLED
    del names[KILLED, "acceptor"]  # it has no side
    report = Report(
        "mobility",
        "moderate NATs, 10 ms from each to the internet, a record every 20 ms both ways; seconds",
        [Column("longest", "longest silence", ratio=False, digits=2), Column("after", "after", ratio=False, digits=2)],
        [Row(name) for name in names.values()],
        next(iter(names.values())),
        notes=[
            "`after`: what of the silence came after connectivity was back; both of the worse direction",
            "every record was counted at the other end: none lost, none twice",
        ],
    )
    if lacking := missing():
        for row in report.rows:
            row.absent = f"a network lab needs {', '.join(lacking)}"
        return report
    for number in range(rounds):
        for (event, side), name in names.items():
            with await asyncio.to_thread(Lab, seed=number) as lab:
                async with talking(lab) as world:
                    longest, after = worst(await happening(world, event, side, asleep=options.pick(60, 6)))
                    report.row(name).add(longest=longest, after=after)
    after = max(value for row in report.rows for value in row.samples["after"])
    report.aim("silent for at most 2 s after connectivity is back, everywhere", after, _at_most, AIM)
    return report


def _at_most(value: float, bound: float) -> bool:
    return value <= bound


BENCH = Bench("mobility", "silence of a live stream while the network changes under it", mobility)
