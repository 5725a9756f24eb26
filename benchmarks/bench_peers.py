"""One endpoint with hundreds of peers, each with four candidates: CPU while nobody talks and while all do, memory."""

from __future__ import annotations

import contextlib
import json
from typing import Final

from benchmarks.quic.contender import CONTENDERS, OURS, RAW, Entry
from benchmarks.quic.pair import choose
from benchmarks.report import Bench, Column, Options, Report
from tests.interop.peers.process import LineProcess, python_module

MODULE: Final = "benchmarks.peers.process"
FIRST: Final = 10
RATE: Final = 1.0
"""Requests a second to each peer."""
SETTLE: Final = 15.0
"""Seconds after the last dial until nothing of it is under way: candidates are tried for some."""
IDLE: Final = 60.0
"""Three keep-alives of tom-connect."""
ACTIVE: Final = 20.0
BOTH: Final = {"both_families": True}
IROH: Final = next(entry for entry in CONTENDERS if entry.name == "iroh")
CHOSEN: Final = {RAW: {}, IROH: BOTH, OURS: BOTH}
PEERS: Final = {**CHOSEN, OURS: {**BOTH, "watch_network": False}}
"""Hundreds of endpoints in one process would look at its interfaces at once whenever something changes there."""


async def run(options: Options) -> Report:
    """Connect one endpoint of each contender with its peers, let it rest, and let it talk with all of them."""
    count = options.pick(500, 8)
    entries, rows = choose(options, tuple(CHOSEN))
    report = Report(
        "peers",
        f"one endpoint with {count} peers, of each of which two addresses answer and two don't",
        [
            Column("idle", "idle, % of a core", digits=2),
            Column("active", f"{count * RATE:g} requests a second, % of a core"),
            Column("request_us", "CPU us a request"),
            Column("kib", "memory a peer, KiB"),
            Column("kib_later", "after talking, KiB"),
        ],
        rows,
        IROH.title,
        notes=[
            "CPU time and memory of the process with the one endpoint, which dials; its peers share another process",
            "idle: what connections do by themselves, keep-alives included, as programs ship; aioquic's do nothing",
            "a request is a stream with 64 bytes each way; aioquic has one address a peer, and a socket a connection",
        ],
    )
    for _ in range(options.count(1)):
        for entry in entries:
            await _sample(report, entry, count, options)
    return report


async def _sample(report: Report, entry: Entry, count: int, options: Options) -> None:
    idle, active, settle = (options.pick(round(full), 2) for full in (IDLE, ACTIVE, SETTLE))
    with contextlib.ExitStack() as stack:
        peers, hub = (
            stack.enter_context(LineProcess.start(python_module(MODULE, role, entry.name, json.dumps(chosen))))
            for role, chosen in (("peers", PEERS[entry]), ("hub", CHOSEN[entry]))
        )
        where = (await peers.call("listen", count=FIRST + count))["where"]
        await hub.call("dial", where=where[:FIRST])
        before = (await hub.call("memory"))["resident"]
        await hub.call("dial", where=where[FIRST:], timeout=600)
        await hub.call("rest", seconds=settle)
        memory = [(await hub.call("memory"))["resident"]]
        rested = await hub.call("rest", seconds=idle)
        talked = await hub.call("talk", seconds=active, rate=RATE, timeout=600)
        memory.append((await hub.call("memory"))["resident"])
    shares = [100 * took["cpu"] / took["seconds"] for took in (rested, talked)]
    growth = [(late - before) / count / 1024 for late in memory]
    asked = talked["cpu"] - rested["cpu"] * talked["seconds"] / rested["seconds"]
    report.row(entry.title).add(
        idle=shares[0],
        active=shares[1],
        request_us=1e6 * asked / talked["requests"],
        kib=growth[0],
        kib_later=growth[1],
    )


BENCH = Bench("peers", "one endpoint with 500 peers: CPU idle and active, memory", run)
