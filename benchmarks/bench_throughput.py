"""Bulk throughput between two processes: one stream, the hash checked."""

from __future__ import annotations

import contextlib

from benchmarks.quic.contender import OURS, RAW
from benchmarks.quic.pair import choose, pair
from benchmarks.report import Bench, Column, Options, Report

MIB = 1 << 20


async def run(options: Options) -> Report:
    """Upload over each contender in turn, round after round, so that a noisy minute hits all alike."""
    size = options.pick(64 * MIB, MIB)
    entries, rows = choose(options)
    report = Report(
        "throughput",
        f"{size // MIB} MiB on one stream, loopback, two processes",
        [Column("mb_s", "MB/s", more_is_better=True), Column("cpu_s_gb", "CPU s a GB, both sides")],
        rows,
        RAW.title,
        notes=["SHA-1 checked; medians; the two processes share the machine's cores with whatever else runs"],
    )
    async with contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(pair(entry)) for entry in entries]
        for each in pairs:
            await each.client.call("connect", where=each.where)
            await each.client.call("upload", size=MIB)
        for _ in range(options.count(5)):
            for each in pairs:
                report.row(each.row_name).add(**await each.upload(size))
    report.aim("at least 2.5 times raw aioquic", report.ratio(OURS.title, "mb_s"), lambda a, b: a >= b, 2.5)
    ours, qh3 = (report.value(name, "mb_s") for name in (OURS.title, "qh3, stock asyncio"))
    report.aim("above qh3, MB/s", ours, lambda a, b: a > b, qh3)
    return report


BENCH = Bench("throughput", "bulk throughput of one stream between two processes", run)
