"""Resident memory of an idle connection, on each side."""

from __future__ import annotations

from benchmarks.quic.contender import OURS, RAW
from benchmarks.quic.pair import choose, pair
from benchmarks.report import Bench, Column, Options, Report


async def run(options: Options) -> Report:
    """Open many connections over each contender, and see by how much both processes have grown."""
    count = options.pick(200, 5)
    entries, rows = choose(options)
    report = Report(
        "memory",
        f"growth of resident memory over {count} idle connections, per connection",
        [Column("server_kib", "server, KiB"), Column("client_kib", "client, KiB")],
        rows,
        RAW.title,
        notes=[
            "ten connections are open before the first look, so that what is loaded once is not counted",
            "a stock client has a socket for each connection; iroh and tom-connect have one for all",
        ],
    )
    for _ in range(options.count(2)):
        for entry in entries:
            async with pair(entry) as each:
                await each.client.call("connect", where=each.where, count=10)
                before = [(await side.call("memory"))["resident"] for side in (each.server, each.client)]
                await each.client.call("connect", where=each.where, count=count)
                after = [(await side.call("memory"))["resident"] for side in (each.server, each.client)]
                growth = [(late - early) / count / 1024 for early, late in zip(before, after, strict=True)]
                report.row(each.row_name).add(server_kib=growth[0], client_kib=growth[1])
    for side in ("server_kib", "client_kib"):
        report.aim(f"under 60 KiB, {side.partition('_')[0]}", report.value(OURS.title, side), lambda a, b: a < b, 60.0)
    return report


BENCH = Bench("memory", "resident memory of an idle connection, per side", run)
