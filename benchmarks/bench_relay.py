"""One relay process beside a bare aiohttp WebSocket echo of the same frames; the same clients load both."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import statistics
import time
from collections.abc import Iterator

import attrs

from benchmarks.report import Bench, Column, Options, Report, Row
from tests.interop.peers.process import LineProcess, python_module

ECHO, RELAY, UVLOOP = "bare aiohttp echo", "tom-relay", "tom-relay, uvloop"
SIZE = 1200
#: Datagrams in a batch, about what a sender under load makes.
BATCH = 10
#: Frames on their way at once: far from filling a queue of 512.
WINDOW = 64
RATE = 1000


@attrs.frozen(eq=False)
class Contender:
    """A server's process and the one that loads it."""

    name: str
    server: LineProcess
    load: LineProcess

    async def cpu(self) -> float:
        """Seconds that the server has computed."""
        return float((await self.server.call("busy"))["cpu"])


def contenders(options: Options, *names: str) -> list[str]:
    """Those that can run and were not left out; uvloop is no dependency, and stands there only if installed."""
    found = [name for name in names if name != UVLOOP or importlib.util.find_spec("uvloop")]
    return [name for name in found if name not in options.without]


@contextlib.contextmanager
def started(name: str) -> Iterator[Contender]:
    """Start a contender."""
    kind = "echo" if name == ECHO else "relay"
    loop = "uvloop" if name == UVLOOP else "asyncio"
    with LineProcess.start(python_module("benchmarks.relay.server_process", kind, loop)) as server:
        port = str(server.ready["port"])
        with LineProcess.start(python_module("benchmarks.relay.load_process", kind, port)) as load:
            yield Contender(name, server, load)


def percentile(values: list[float], share: float) -> float:
    """The value under which that share of them lies."""
    return sorted(values)[round(share * (len(values) - 1))]


async def forward(options: Options) -> Report:
    """Throughput of single datagrams and of batches, and the time on the way at a steady rate."""
    names = contenders(options, ECHO, RELAY, UVLOOP)
    seconds = options.pick(30, 2) / 10
    report = Report(
        "relay",
        f"datagrams of {SIZE} bytes through one process, single and {BATCH} a frame; {RATE:,} a second for latency",
        [
            Column("single_mb_s", "MB/s", more_is_better=True),
            Column("batch_mb_s", "batches, MB/s", more_is_better=True),
            Column("cpu_s_gb", "CPU s a GB"),
            Column("batch_cpu_s_gb", "batches, CPU s a GB"),
            Column("p50_us", "p50, µs", digits=0),
            Column("p99_us", "p99, µs", digits=0),
        ],
        [Row(name) for name in names],
        ECHO,
        notes=[
            "an echo's client sends and gets; a relay's pair of clients shares one process as well",
            f"{WINDOW} frames on their way at once; CPU is the server's alone; latency is from client to client",
        ],
    )
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(started(name)) for name in names]
        for each in running:
            await each.load.call("connect", count=2)
        for _ in range(options.count(5)):
            for packets, prefix in ((1, ""), (BATCH, "batch_")):
                for each in running:
                    before = await each.cpu()
                    flow = {"pairs": 1, "size": SIZE, "packets": packets, "window": WINDOW, "seconds": seconds}
                    done = await each.load.call("flow", **flow)
                    size, cpu = sum(done["bytes"]), await each.cpu() - before
                    rate = size / done["seconds"] / 1e6
                    report.row(each.name).add(
                        **{f"{prefix or 'single_'}mb_s": rate, f"{prefix}cpu_s_gb": cpu / size * 1e9}
                    )
            for each in running:
                taken = (await each.load.call("pace", size=SIZE, rate=RATE, seconds=seconds))["taken"]
                p50, p99 = (percentile(taken, share) * 1e6 for share in (0.5, 0.99))
                report.row(each.name).add(p50_us=p50, p99_us=p99)
    for what, text in (("single_mb_s", "of single datagrams"), ("batch_mb_s", "of batches")):
        report.aim(f"at least 0.8 of the echo's throughput {text}", report.ratio(RELAY, what), lambda a, b: a >= b, 0.8)
    for share in ("p50", "p99"):
        ours, echo = report.value(RELAY, f"{share}_us"), report.value(ECHO, f"{share}_us")
        if ours is not None and echo is not None:
            report.notes.append(f"added over the echo at {share}: {ours - echo:+.0f} µs")
    return report


async def idle(options: Options) -> Report:
    """Memory of clients that only answer pings, and what the server computes for them."""
    count, seconds = options.pick(2000, 20), options.pick(200, 5) / 10
    names = contenders(options, ECHO, RELAY)
    report = Report(
        "relay-idle",
        f"{count:,} idle clients of one process",
        [Column("kib", "KiB a client"), Column("cpu", "CPU, % of a core", ratio=False, digits=2)],
        [Row(name) for name in names],
        ECHO,
        notes=[
            "growth of resident memory; 20 clients are there before the first look",
            f"CPU over {seconds:g} s; a relay pings each client every 12 to 15 s, an echo none",
        ],
    )
    for _ in range(options.count(2)):
        for name in names:
            with started(name) as each:
                await each.load.call("connect", count=20)
                before = (await each.server.call("memory"))["resident"]
                await each.load.call("connect", count=20 + count)
                await asyncio.sleep(0.5)
                after = (await each.server.call("memory"))["resident"]
                start, cpu = time.perf_counter(), await each.cpu()
                await asyncio.sleep(seconds)
                share = (await each.cpu() - cpu) / (time.perf_counter() - start)
                # Late in the quiet time: pings have been sent and answered.
                after = max(after, (await each.server.call("memory"))["resident"])
                report.row(name).add(kib=(after - before) / count / 1024, cpu=100 * share)
    report.aim("under 40 KiB a client", report.value(RELAY, "kib"), lambda a, b: a < b, 40.0)
    return report


async def pairs(options: Options) -> Report:
    """Many pairs at once, each sending as fast as it is let."""
    count, seconds = options.pick(200, 10), options.pick(50, 5) / 10
    names = contenders(options, ECHO, RELAY, UVLOOP)
    report = Report(
        "relay-pairs",
        f"{count} pairs at once, each with 8 datagrams of {SIZE} bytes on their way",
        [
            Column("fairness", "slowest / fastest", more_is_better=True, ratio=False, digits=2),
            Column("mb_s", "all together, MB/s", more_is_better=True),
        ],
        [Row(name) for name in names],
        ECHO,
    )
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(started(name)) for name in names]
        for each in running:
            await each.load.call("connect", count=count if each.name == ECHO else 2 * count)
        for _ in range(options.count(3)):
            for each in running:
                flow = {"pairs": count, "size": SIZE, "packets": 1, "window": 8, "seconds": seconds}
                done = await each.load.call("flow", **flow)
                rate = sum(done["bytes"]) / done["seconds"] / 1e6
                report.row(each.name).add(fairness=min(done["bytes"]) / max(done["bytes"]), mb_s=rate)
    report.aim("slowest at least half of the fastest", report.value(RELAY, "fairness"), lambda a, b: a >= b, 0.5)
    return report


async def overload(options: Options) -> Report:
    """Many senders without a pause, to a client that reads all it can and to one that reads slowly."""
    senders, seconds = options.pick(16, 4), options.pick(40, 10) / 10
    quick, slow = "reads all it can", "reads 4 MB/s"
    report = Report(
        "relay-overload",
        f"{senders} clients send to one without a pause",
        [
            Column("sent", "taken in, MB/s"),
            Column("got", "got, MB/s", more_is_better=True),
            Column("dropped", "dropped, %", ratio=False),
            Column("queued", "queued at most, KiB", ratio=False, digits=0),
            Column("grown", "grown by, MiB", ratio=False),
        ],
        [Row(quick), Row(slow)],
        quick,
        notes=["growth is that of resident memory at its highest, over what it was after a first overload"],
    )
    with started(RELAY) as each:
        await each.load.call("connect", count=senders)
        await each.load.call("overload", senders=senders, size=SIZE, rate=4_000_000, seconds=seconds)
        await each.load.call("overload", senders=senders, size=SIZE, rate=0, seconds=seconds)
        base = (await each.server.call("memory"))["resident"]
        for _ in range(options.count(3)):
            for row, rate in zip(report.rows, (0, 4_000_000), strict=True):
                before = await each.server.call("counts")
                running = asyncio.create_task(
                    each.load.call("overload", senders=senders, size=SIZE, rate=rate, seconds=seconds)
                )
                grown, queued = [0.0], [0.0]
                while not running.done():
                    await asyncio.sleep(0.1)
                    grown.append(((await each.server.call("resident"))["resident"] - base) / (1 << 20))
                    queued.append((await each.server.call("counts"))["queued"] / 1024)
                done = await running
                after = await each.server.call("counts")
                dropped, relayed = (after[key] - before[key] for key in ("dropped", "relayed"))
                row.add(
                    sent=(dropped + relayed) * SIZE / seconds / 1e6,
                    got=done["got"] * SIZE / seconds / 1e6,
                    dropped=100 * dropped / max(1, dropped + relayed),
                    queued=max(queued),
                    grown=max(grown),
                )
                if done["lost"]:
                    report.notes.append(f"the client that {row.name} was let go once")
    report.aim("drops what a slow client does not take, %", report.value(slow, "dropped"), lambda a, b: a > b, 0.0)
    grown = [value for row in report.rows for value in row.samples["grown"]]
    report.aim("never grows by more than 16 MiB", max(grown), lambda a, b: a <= b, 16.0)
    report.notes.append(f"median growth {statistics.median(grown):.1f} MiB, at most {max(grown):.1f} MiB")
    return report


FORWARD = Bench("relay", "throughput and latency through one relay process", forward)
IDLE = Bench("relay-idle", "memory and CPU of a relay's idle clients", idle)
PAIRS = Bench("relay-pairs", "fairness among 200 pairs at one relay", pairs)
OVERLOAD = Bench("relay-overload", "a relay that is sent more than can be delivered", overload)
