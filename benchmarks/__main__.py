"""`python -m benchmarks`: list the benchmarks, or run some or all of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Sequence

from rich.console import Console

from benchmarks import (
    bench_dht,
    bench_latency,
    bench_memory,
    bench_mobility,
    bench_nat,
    bench_peers,
    bench_pkarr,
    bench_relay,
    bench_resolve,
    bench_serverless,
    bench_serverless_attack,
    bench_serverless_discovery,
    bench_serverless_idle,
    bench_shared_socket,
    bench_startup,
    bench_throughput,
    bench_volunteer_flood,
    bench_volunteers,
)
from benchmarks.report import Bench, Options

ALL = (
    bench_throughput.BENCH,
    bench_latency.BENCH,
    bench_memory.BENCH,
    bench_peers.BENCH,
    bench_shared_socket.BENCH,
    bench_dht.LAB,
    bench_dht.SIMULATION,
    bench_relay.FORWARD,
    bench_relay.IDLE,
    bench_relay.PAIRS,
    bench_relay.OVERLOAD,
    bench_nat.NEAR,
    bench_nat.DELAYED,
    bench_nat.LOSING,
    bench_nat.ODD,
    bench_mobility.BENCH,
    bench_pkarr.RELAY,
    bench_pkarr.RESOLVE,
    bench_resolve.BENCH,
    bench_startup.IMPORT,
    bench_startup.BIND,
    bench_serverless.BENCH,
    bench_serverless_discovery.BENCH,
    bench_volunteers.BENCH,
    bench_volunteer_flood.BENCH,
    bench_serverless_idle.BENCH,
    bench_serverless_attack.BENCH,
)
BENCHES: dict[str, Bench] = {bench.name: bench for bench in ALL}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run, or `all`; none lists them")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of tables")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    parser.add_argument("--rounds", type=int, help="rounds of each benchmark; the median counts")
    parser.add_argument("--without", action="append", default=[], metavar="CONTENDER", help="leave a contender out")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PART",
        help="in nat* and serverless: the nets alone whose name has this in it",
    )
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - BENCHES.keys() - {"all"}
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit code."""
    chosen = parse(sys.argv[1:] if arguments is None else arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if not chosen.names:
        for bench in BENCHES.values():
            console.print(f"{bench.name:16}{bench.title}")
        console.print("\npython -m benchmarks NAME ...    or    python -m benchmarks all")
        return 0
    names = list(BENCHES) if "all" in chosen.names else chosen.names
    options = Options(chosen.tiny, chosen.rounds, frozenset(chosen.without), tuple(chosen.only))
    if not chosen.json:
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        console.print(f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores{load}\n")
    for name in names:
        report = asyncio.run(BENCHES[name].run(options))
        if chosen.json:
            print(json.dumps(report.as_json()), flush=True)
        else:
            report.show(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
