"""How long it takes to find a node, by each source and by all together, and what a bad source costs."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.dht.contender import Simulation
from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.resolve.nodes import Target, targets
from benchmarks.resolve.sources_process import ORIGIN
from tests.interop.peers.process import LineProcess, python_module
from tom_connect.tickets import encode_ticket

DELAY = 0.03
"""Seconds that a request to a server takes both ways: one in the same part of the world."""
CLOSE, CLOSE_MS = 1.1, 1.0
"""How many times the fastest honest source's time all together may take, and what may be added in any case, ms."""
FILE = "nodes.txt"
WARM_UP = 10
"""Look-ups before those that are measured: connections are open then, and latencies known."""

Sections = Mapping[str, Mapping[str, Any]]


@attrs.frozen
class Scenario:
    """A row. `sources`: names of sources, a bad one with its fault; `rivals`: rows of which the best is the measure."""

    name: str
    sources: tuple[str, ...]
    rivals: tuple[str, ...] = ()


ALONE = ("file", "dht", "pkarr", "dns", "signaling")
SCENARIOS = (
    *(Scenario(name, (name,)) for name in ALONE),
    Scenario("all", ("file", "dht", "pkarr", "dns", "signaling"), ("file",)),
    Scenario("all but the file", ("dht", "pkarr", "dns", "signaling"), ("dht", "pkarr", "dns")),
    Scenario("DHT and Pkarr", ("dht", "pkarr"), ("dht", "pkarr")),
    Scenario("DHT dead", ("dht dead", "pkarr", "dns"), ("pkarr", "dns")),
    Scenario("DHT slow", ("dht slow", "pkarr", "dns"), ("pkarr", "dns")),
    Scenario("DHT has older record", ("dht older", "pkarr"), ("pkarr",)),
    Scenario("Pkarr dead", ("dht", "pkarr dead", "dns"), ("dht", "dns")),
    Scenario("Pkarr slow", ("dht", "pkarr slow", "dns"), ("dht", "dns")),
    Scenario("Pkarr has forged record", ("dht", "pkarr forged"), ("dht",)),
    Scenario("Pkarr has foreign record", ("dht", "pkarr foreign"), ("dht",)),
    Scenario("Pkarr has older record", ("dht", "pkarr older"), ("dht",)),
    Scenario("DNS dead", ("dht", "pkarr", "dns dead"), ("dht", "pkarr")),
    Scenario("DNS slow", ("dht", "pkarr", "dns slow"), ("dht", "pkarr")),
)


@attrs.frozen(eq=False)
class World:
    """The sources that run. `places`: where each is."""

    nodes: Sequence[Target]
    places: Mapping[str, str]
    dhts: Mapping[str, Simulation]
    """By fault, "" for the one that is as it should be."""
    folder: Path

    def options(self, scenario: Scenario) -> Sections:
        """The configuration by section of an endpoint that asks the scenario's sources."""
        return {name.partition(" ")[0]: self._section(name) for name in scenario.sources}

    def _section(self, name: str) -> Any:
        match name.split():
            case ["file"]:
                return str(self.folder / FILE)
            case ["dht", *fault]:
                dht = self.dhts.get("".join(fault))
                bootstrap = [self.places["dht dead"]] if dht is None else [f"{h}:{p}" for h, p in dht.entrances]
                return {"bootstrap": bootstrap, "ipv6": False, "read_legacy_item": False}
            case ["pkarr", *_]:
                return {"relays": [self.places[name]], "publish": False}
            case ["dns", *_]:
                return {"origins": [ORIGIN], "servers": [self.places[name]]}
        return {"urls": [self.places["signaling"]]}

    def wanted(self, scenario: Scenario, number: int) -> tuple[str, str]:
        """The key to look for, and the address that is right: signaling alone knows one node that is there."""
        if scenario.sources == ("signaling",):
            return str(self.nodes[0].key.node_id), self.places["signaled"]
        node = self.nodes[number % len(self.nodes)]
        return str(node.key.node_id), node.place


async def run(options: Options) -> Report:
    """Measure every scenario."""
    warm, warm_up, cold = options.pick(100, 2), options.pick(WARM_UP, 1), options.count(10)
    report = Report(
        "resolve",
        f"looking a node up until its right address is known; a query takes {options.pick(50, 5)} ms in the DHT, a "
        f"request {DELAY * 1000:.0f} ms to a server and back",
        [
            Column("warm", "warm p50, ms"),
            Column("warm_p99", "p99, ms"),
            Column("cold", "cold p50, ms"),
            Column("cold_p99", "slowest cold, ms"),
        ],
        [Row(scenario.name) for scenario in SCENARIOS if scenario.name not in options.without],
        "all but the file",
        notes=[
            f"cold: the first look-up of {cold} processes, as soon as the endpoint is bound; the DHT is still joining",
            f"warm: {warm} nodes one after the other by the last of them, which has looked for {warm_up} others before",
            "dead: takes everything and says nothing; slow: 2 s, a DHT of 600 ms a query; older: the node's own record",
            "of an hour ago; the honest sources that are asked beside a bad one are the measure, see the rows above",
            "signaling is asked 5 s after the others by design, and so counts alone only",
        ],
    )
    with contextlib.ExitStack() as stack:
        world = await start(stack, options, warm + warm_up + cold)
        for scenario in SCENARIOS:
            if scenario.name in options.without:
                continue
            row = report.row(scenario.name)
            if not options.tiny:
                _started(world, scenario, cold).close()
            for number in range(cold):
                with _started(world, scenario, number) as asking:
                    row.add(cold=asking.ready["ms"])
                    if number == cold - 1:
                        # A node of ours answers 50 times, and then 5 times a second: signaling knows one alone.
                        most = 40 if scenario.sources == ("signaling",) else warm + warm_up
                        for other in range(min(warm + warm_up, most)):
                            key, place = world.wanted(scenario, cold + other)
                            ms = (await asking.call("look_up", key=key, place=place))["ms"]
                            row.add(warm=ms if other >= warm_up else None)
            row.add(warm_p99=_percentile(row.samples["warm"], 0.99), cold_p99=max(row.samples["cold"]))
    for scenario in SCENARIOS:
        for key in ("warm", "cold") if scenario.rivals else ():
            rivals = [value for name in scenario.rivals if (value := report.value(name, key)) is not None]
            if report.value(scenario.name, key) is not None and rivals:
                text = f"{scenario.name}, {key} p50 within 10% (or 1 ms) of the fastest honest source, ms"
                report.aim(text, report.value(scenario.name, key), _is_close, min(rivals))
    return report


async def start(stack: contextlib.ExitStack, options: Options, count: int) -> World:
    """Start every source, and have each hold its records."""
    now_us = time.time_ns() // 1000
    nodes = targets(count, now_us)
    size, rtt = options.pick(150, 24), float(options.pick(50, 5))
    sources = stack.enter_context(
        LineProcess.start(
            python_module("benchmarks.resolve.sources_process", str(count), str(now_us), str(DELAY)), ready_timeout=120
        )
    )
    dhts = {}
    for fault, ms in (("", rtt), ("slow", 12 * rtt), ("older", rtt)):
        dht = dhts[fault] = Simulation.start(size, rtt_ms=ms, loss=0.0, dead=0.1, seed=3)
        stack.callback(dht.close)
        for node in nodes:
            record = node.old if fault == "older" else node.record
            await dht.process.call(
                "place", seed=node.key.seed().hex(), value=record.dns_packet.hex(), seq=record.timestamp_us
            )
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / FILE).write_text("\n".join(encode_ticket(node.record.addr) for node in nodes), encoding="ascii")
    return World(nodes, sources.ready["places"], dhts, folder)


def _started(world: World, scenario: Scenario, number: int) -> LineProcess:
    """A process that has looked up the node of that number."""
    given = {**world.options(scenario), "first": world.wanted(scenario, number)}
    # As on a machine where it has run before: compiled modules are kept.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(world.folder)}
    command = python_module("benchmarks.resolve.asking_process", json.dumps(given))
    return LineProcess.start(command, environment=compiled)


def _is_close(value: float, fastest: float) -> bool:
    return value <= max(CLOSE * fastest, fastest + CLOSE_MS)


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


BENCH = Bench("resolve", "finding a node: by each source, by all, with a dead, slow or lying one", run)
