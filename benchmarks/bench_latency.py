"""Time to connect, and time of a small request."""

from __future__ import annotations

import contextlib

from benchmarks.quic.contender import RAW
from benchmarks.quic.pair import choose, pair
from benchmarks.report import Bench, Column, Options, Report

REQUEST = 32


async def run(options: Options) -> Report:
    """Dial and ask over each contender in turn."""
    requests, dials = options.pick(300, 5), options.pick(30, 2)
    entries, rows = choose(options)
    report = Report(
        "latency",
        f"connect, connect and one request, and a request on a live connection ({REQUEST} bytes both ways)",
        [
            Column("connect_ms", "connect, ms", digits=2),
            Column("answer_ms", "and first answer, ms", digits=2),
            Column("request_us", "request, us", digits=0),
        ],
        rows,
        RAW.title,
        notes=["each request on a stream of its own, one after the other; connections are made one after the other"],
    )
    async with contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(pair(entry)) for entry in entries]
        for each in pairs:
            await each.client.call("connect", where=each.where)
            await each.client.call("request", count=requests // 5 + 1, size=REQUEST)
            await each.client.call("dial", where=each.where, count=dials // 5 + 1, size=REQUEST)
        for _ in range(options.count(5)):
            for each in pairs:
                row = report.row(each.row_name)
                reply = await each.client.call("request", count=requests, size=REQUEST)
                for us in reply["us"]:
                    row.add(request_us=us)
                reply = await each.client.call("dial", where=each.where, count=dials, size=REQUEST)
                for connect_ms, answer_ms in zip(reply["connect_ms"], reply["answer_ms"], strict=True):
                    row.add(connect_ms=connect_ms, answer_ms=answer_ms)
    return report


BENCH = Bench("latency", "time to connect, and time of a small request", run)
