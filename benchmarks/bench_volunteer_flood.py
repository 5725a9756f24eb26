"""How long a node looks for two volunteers where an attacker has filled the topics; on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random

from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.volunteers.simulated import Volunteer, World, run_virtually
from tom_connect.addr import SocketAddr

HONEST = 10
HOSTS = 4
"""Machines of an attacker who has few."""
CASES = {
    "nobody": (0, HOSTS),
    f"10 to 1, {HOSTS} hosts": (10, HOSTS),
    f"100 to 1, {HOSTS} hosts": (100, HOSTS),
    "10 to 1, each in a network of its own": (10, 0),
    "100 to 1, each in a network of its own": (100, 0),
}
"""Addresses of the attacker for each honest one, and his hosts; 0: as many as addresses."""
LONGEST = 600.0
"""Seconds after which a search is over, whatever it has found; they count then."""


def crowd(ratio: int, hosts: int, seed: int) -> World:
    """A third of the attacker's addresses is dead, one passes nothing on, one does so only until it is used."""
    rng = random.Random(seed)
    honest = [Volunteer(SocketAddr(f"20.{n}.0.1", 4433), rtt=rng.uniform(0.02, 0.3)) for n in range(HONEST)]
    hostile: list[Volunteer] = []
    dead: list[SocketAddr] = []
    for number in range(ratio * HONEST):
        host = number % hosts if hosts else number
        addr = SocketAddr(f"30.{host // 250}.{host % 250}.1", 1024 + number)
        match number % 3:
            case 0:
                dead.append(addr)
            case 1:
                hostile.append(Volunteer(addr, tested=False))
            case _:
                hostile.append(Volunteer(addr, passes=False))
    return World([*honest, *hostile], dead, seed=seed)


async def search(world: World, *, defended: bool) -> tuple[float, float, int]:
    """Seconds from the start until one honest volunteer is in use, and two, and how many addresses were tried."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = two = LONGEST
    async with world.seeking(defended=defended) as seeker:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST):
                first = await world.until(1, LONGEST) - began
                two = await world.until(2, LONGEST) - began
        return first, two, seeker.tried


def searched(ratio: int, hosts: int, seed: int, *, defended: bool) -> tuple[float, float, int]:
    """What `search` gives, on a loop of its own."""
    return run_virtually(search(crowd(ratio, hosts, seed), defended=defended))


async def run(options: Options) -> Report:
    """Search in crowds of each kind, with and without the bounds on hosts and networks."""
    rows = [Row(name) for name in CASES]
    report = Report(
        "volunteer-flood",
        f"a first search among {HONEST} honest volunteers and the attacker's addresses, virtual time",
        [
            Column("first", "one honest, s"),
            Column("two", "two, s"),
            Column("worst", "two, longest, s"),
            Column("tried", "addresses tried"),
            Column("open_two", "no bounds: two, s"),
            Column("open_worst", "no bounds: longest, s"),
        ],
        rows,
        "nobody",
        notes=["what a trial takes is made up (dead: 1.5 s, lying: 2 s); which are made, when, is the plugin's code"],
    )
    seeds = options.count(15, 1)
    for row in rows:
        ratio, hosts = CASES[row.name]
        worst = open_worst = 0.0
        for seed in range(seeds):
            # A thread, since a loop runs here already.
            first, two, tried = await asyncio.to_thread(searched, ratio, hosts, seed, defended=True)
            _, open_two, _ = await asyncio.to_thread(searched, ratio, hosts, seed, defended=False)
            worst, open_worst = max(worst, two), max(open_worst, open_two)
            row.add(first=first, two=two, tried=tried, open_two=open_two)
        row.add(worst=worst, open_worst=open_worst)
    few = report.value(f"100 to 1, {HOSTS} hosts", "worst")
    report.aim("100 to 1 from few hosts: two within 15 s, always", few, lambda a, b: a <= b, 15.0)
    return report


BENCH = Bench("volunteer-flood", "finding two honest volunteers among an attacker's addresses, by how many he has", run)
