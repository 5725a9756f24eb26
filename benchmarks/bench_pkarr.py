"""Our Pkarr relay and client beside npm's, in one run."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from benchmarks.report import Bench, Column, Options, Report, Row
from tests.interop.peers.npm_pkarr import NpmPkarr
from tests.interop.peers.process import LineProcess, PeerMissing, python_module

NPM, OURS = "npm pkarr 1.3.0", "tom-pkarr"
CONNECTIONS = 16
PUT_SECONDS = 5.0
"""Seconds of PUTs at most: npm's waits seconds for its DHT client where several are under way."""


@attrs.frozen(eq=False)
class Contender:
    """A relay's process and its URL."""

    name: str
    process: LineProcess
    url: str

    async def connect(self, load: LineProcess) -> None:
        """Let the load come here."""
        parts = urlsplit(self.url)
        await load.call("connect", host=parts.hostname, port=parts.port, count=CONNECTIONS)

    async def resident(self) -> float:
        """Bytes of resident memory, after a collection."""
        return float((await self.process.call("memory"))["resident"])

    async def cpu(self) -> float:
        """Seconds that the relay has computed."""
        return float((await self.process.call("busy"))["cpu"])


@contextlib.contextmanager
def ours() -> Iterator[Contender]:
    """Our relay, with its packets in a file and no DHT."""
    with tempfile.TemporaryDirectory() as folder:
        with LineProcess.start(
            python_module("benchmarks.pkarr.server_process", str(Path(folder) / "packets"))
        ) as process:
            yield Contender(OURS, process, str(process.ready["url"]))


async def fill_npm(relay: Contender, dht: tuple[str, int], load: LineProcess, count: int) -> None:
    """Have the DHT node of npm's relay hold packets."""
    await load.call("fill_dht", host=dht[0], port=dht[1], count=count, timeout=600.0)
    held = (await relay.process.call("count_values", dht=0))["values"]
    if held < count * 0.99:
        raise RuntimeError(f"npm's relay holds {held} packets of {count}")


async def relay(options: Options) -> Report:
    """Requests a second and memory with many packets stored."""
    count = options.pick(100_000, 40)
    requests, puts = options.pick(20_000, 40), options.pick(2_000, 10)
    rounds = options.count(5)
    names = [name for name in (NPM, OURS) if name not in options.without]
    report = Report(
        "pkarr",
        f"a Pkarr relay with {count:,} packets of 253 bytes; {CONNECTIONS} connections, one request at a time on each",
        [
            Column("get_s", "GET a second", more_is_better=True, digits=0),
            Column("get_cpu", "CPU µs a GET", digits=0),
            Column("put_s", "PUT a second", more_is_better=True, digits=0),
            Column("put_cpu", "CPU µs a PUT", digits=0),
            Column("put_alone_s", "PUT a second, one at a time", more_is_better=True, digits=0),
            Column("p50", "GET alone, p50, ms", digits=2),
            Column("p99", "p99, ms", digits=2),
            Column("mib", "MiB resident"),
            Column("grown", "bytes a packet", digits=0),
        ],
        [Row(name) for name in names],
        NPM,
        notes=[
            "ours keeps packets in an SQLite file and has no DHT behind it; npm's asks and feeds the DHT alone",
            "npm's own DHT node holds all packets, so that a GET needs no network; one other node is there to put to",
            "GET takes keys by chance among all; PUT new keys each time; CPU is the relay's alone",
        ],
    )
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(
            LineProcess.start(
                python_module("benchmarks.pkarr.load_process", str(count + 2 * puts * rounds)), ready_timeout=300
            )
        )
        running: list[Contender] = []
        for name in names:
            try:
                running.append(await _started(name, stack, load, report, count))
            except PeerMissing as missing:
                report.row(name).absent = str(missing)
        for number in range(rounds):
            for each in running:
                await each.connect(load)
                before = await each.cpu()
                got = await load.call("get", count=count, requests=requests)
                middle = await each.cpu()
                first = count + 2 * number * puts
                put = await load.call("put", first=first, count=puts, at_once=CONNECTIONS, seconds=PUT_SECONDS)
                after = await each.cpu()
                one = await load.call("put", first=first + puts, count=puts, at_once=1, seconds=PUT_SECONDS)
                alone = (await load.call("latency", count=count, requests=options.pick(500, 20)))["taken"]
                if got["refused"] or put["refused"]:
                    raise RuntimeError(f"{each.name} refused {got['refused']} GETs and {put['refused']} PUTs")
                report.row(each.name).add(
                    get_s=got["requests"] / got["seconds"],
                    get_cpu=(middle - before) / got["requests"] * 1e6,
                    put_s=put["requests"] / put["seconds"],
                    put_alone_s=one["requests"] / one["seconds"],
                    put_cpu=(after - middle) / put["requests"] * 1e6,
                    p50=_percentile(alone, 0.5) * 1000,
                    p99=_percentile(alone, 0.99) * 1000,
                )
    for key, what in (("get_s", "GETs"), ("put_s", "PUTs"), ("put_alone_s", "PUTs one at a time")):
        report.aim(f"at least as many {what} a second", report.ratio(OURS, key), lambda a, b: a >= b, 1.0)
    return report


async def _started(name: str, stack: contextlib.ExitStack, load: LineProcess, report: Report, count: int) -> Contender:
    """Start a relay, fill it, and note its memory."""
    if name == NPM:
        server, peer = stack.enter_context(NpmPkarr.start()), stack.enter_context(NpmPkarr.start())
        other = await peer.open_dht([], values=2 * count)
        url, dht = await server.start_relay([other], values=2 * count)
        await peer.call("add_node", dht=0, address=dht)
        await server.call("add_node", dht=0, address=other)
        each = Contender(name, server.process, url)
    else:
        each = stack.enter_context(ours())
    await each.connect(load)
    empty = await each.resident()
    start = time.perf_counter()
    if name == NPM:
        await fill_npm(each, dht, load, count)
    else:
        filled = await load.call("put", first=0, count=count, at_once=CONNECTIONS, timeout=600.0)
        if filled["refused"]:
            raise RuntimeError(f"{filled['refused']} packets were refused")
    full = await each.resident()
    report.row(name).add(mib=full / (1 << 20), grown=max(0.0, full - empty) / count)
    report.notes.append(f"{name}: filled in {time.perf_counter() - start:.0f} s")
    return each


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


async def resolve(options: Options) -> Report:
    """The time that a client takes to resolve a node at our relay, in a fresh process and with a connection there."""
    again = options.pick(50, 3)
    report = Report(
        "pkarr-resolve",
        "resolving a node at our Pkarr relay on loopback, verified and read",
        [Column("cold", "first, ms"), Column("warm", "next, ms", digits=2)],
        [Row(name) for name in (NPM, OURS) if name not in options.without],
        NPM,
        notes=["each round has processes of its own; a first one opens the session and the connection"],
    )
    known: list[float] = []
    with ours() as server, contextlib.ExitStack() as stack:
        load = stack.enter_context(LineProcess.start(python_module("benchmarks.pkarr.load_process", "1")))
        await server.connect(load)
        await load.call("put", first=0, count=1, at_once=1)
        key = bytes.fromhex((await load.call("key", number=0))["key"])
        for _ in range(options.count(10)):
            for row in report.rows:
                if row.absent:
                    continue
                try:
                    cold, warm, fresh = await _resolved(row.name, server.url, key, again)
                except PeerMissing as missing:
                    row.absent = str(missing)
                    continue
                row.add(cold=cold, warm=statistics.median(warm))
                known += fresh
    if known:
        report.notes.append(f"{OURS}, from what is known and fresh: {statistics.median(known):.3f} ms")
    report.aim(
        "no slower than npm's, warm, ms", report.value(OURS, "warm"), lambda a, b: a <= b, report.value(NPM, "warm")
    )
    return report


async def _resolved(name: str, url: str, key: bytes, again: int) -> tuple[float, list[float], list[float]]:
    from tom_connect.keys import NodeId

    if name == NPM:
        with NpmPkarr.start() as npm:
            done = await npm.call("timed_gets", url=url, key=key.hex(), count=again)
            return done["cold"], done["warm"], []
    command = python_module("benchmarks.pkarr.resolve_process", url, NodeId(key).z32())
    with LineProcess.start(command) as process:
        done = await process.call("resolve", count=again)
        return done["cold"], done["warm"], [done["known"]]


RELAY = Bench("pkarr", "requests a second and memory of a Pkarr relay with 100,000 packets", relay)
RESOLVE = Bench("pkarr-resolve", "resolving a node at a Pkarr relay, cold and warm", resolve)
