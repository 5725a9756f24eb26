"""A relay under mixed load for a while: its memory stays flat, and whoever keeps to the rules notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import time
import weakref
from collections.abc import AsyncIterator, Coroutine

import attrs
import pytest

from benchmarks.relay.link import DIALECT, Link, Pair, masked
from tests.interop.relayed import Flow, RelayProcess, flowing, meet, node_at
from tom_connect import SecretKey
from tom_relay.errors import RelayDeniedError
from tom_relay.wire import SendDatagrams, encode

SECONDS = float(os.environ.get("TOM_RELAY_LOAD_SECONDS") or (90 if os.environ.get("CI") else 20))
"""How long the load lasts: 3600 shows an hour."""
WARM_UP = min(60.0, SECONDS / 4)
"""Seconds after which memory is looked at: pools and queues have had their worst by then."""
MAX_GROWTH_MIB = 8.0
"""Growth of resident memory from the first quarter after the warm-up to the last one, by medians. It is the same for
any duration: over an hour it is 2 KiB a second, less than one forgotten session."""
STARVED = 30.0
"""Seconds without a datagram after which a pair is starved, and the machine not only busy."""
IDLE_CLIENTS = 100
OPTIONS = ("--stats-nodes", "100", "--client-rate", "8000000", "--client-burst", "2000000")
"""A rate that those who flood run into, and a bound of statistics that newcomers do."""


@attrs.define
class Tally:
    """What the load did, so that a load which did nothing is seen."""

    datagrams: int = 0
    sessions: int = 0
    refused: int = 0
    requests: int = 0
    floods: int = 0
    links: weakref.WeakSet[Link] = attrs.field(factory=weakref.WeakSet, repr=False)
    """Those that may be open still."""


async def opened(port: int, tally: Tally) -> Link:
    """A client of the relay that is closed at the end at the latest."""
    link = await Link.open(port, echo=False)
    tally.links.add(link)
    return link


async def steady(port: int, tally: Tally) -> None:
    """A pair sends single datagrams, another batches, each with a few under way; pauses keep cores for the others."""
    links = [await opened(port, tally) for _ in range(4)]
    try:
        pairs = [
            Pair(links[0], links[1], size=1200, packets=1, window=8),
            Pair(links[2], links[3], size=1200, packets=10, window=2),
        ]
        while True:
            for pair in pairs:
                pair.start()
            await asyncio.sleep(0.1)
            try:
                async with asyncio.timeout(STARVED):
                    while not all(pair.came for pair in pairs):  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise AssertionError("a pair that keeps to the rules gets nothing") from None
            came = [pair.stop() for pair in pairs]
            tally.datagrams += came[0] + 10 * came[1]
            await asyncio.sleep(0.3)
    finally:
        for link in links:
            link.transport.abort()


async def churn(port: int, tally: Tally, rng: random.Random) -> None:
    """Nodes come, send to some that are there and some that are not, and go with or without a goodbye."""
    nobody = SecretKey.generate().node_id.raw
    while True:
        links = await asyncio.gather(*(opened(port, tally) for _ in range(8)))
        for link in links:
            for key in (rng.choice(links).key.node_id.raw, nobody):
                data = rng.randbytes(rng.randrange(1, 1200))
                link.transport.write(masked(encode(SendDatagrams(key, data, 0, None), DIALECT)))
        await asyncio.sleep(0.1)
        for link in links:
            if rng.random() < 0.5:
                link.transport.abort()
            else:
                link.transport.close()
        tally.sessions += len(links)
        await asyncio.sleep(0.2)


async def misuse(port: int, tally: Tally, rng: random.Random) -> None:
    """Breaches of the protocol: garbage for HTTP, unknown frames, a forged key, half a handshake."""
    while True:
        with contextlib.suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(rng.randbytes(rng.randrange(1, 3000)))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        link = await opened(port, tally)
        link.transport.write(masked(bytes((rng.randrange(14, 64),)) + rng.randbytes(100)))
        with pytest.raises(RelayDeniedError):
            await Link.open(port, echo=False, sign_with=SecretKey.generate())
        tally.refused += 1
        await asyncio.sleep(0.2)
        link.transport.abort()


async def flood(port: int, tally: Tally) -> None:
    """Somebody sends without a pause to a client that reads nothing, until that is let go; then to the next."""
    while True:
        sender, target = await opened(port, tally), await opened(port, tally)
        try:
            target.transport.pause_reading()
            frame = masked(encode(SendDatagrams(target.key.node_id.raw, bytes(12_000), 0, 1200), DIALECT))
            until = time.monotonic() + 3.5
            while time.monotonic() < until:
                if not sender.full and not sender.transport.is_closing():
                    sender.transport.write(frame * 8)
                await asyncio.sleep(0.01)
            tally.floods += 1
        finally:
            sender.transport.abort()
            target.transport.abort()
        await asyncio.sleep(1)


async def look(relay: RelayProcess, tally: Tally) -> None:
    """The operator's programs ask for metrics."""
    while True:
        assert (await asyncio.to_thread(relay.metrics))["clients"] >= IDLE_CLIENTS
        tally.requests += 1
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def loaded(
    relay: RelayProcess, tally: Tally
) -> AsyncIterator[tuple[tuple[Flow, Flow], list[asyncio.Task[None]]]]:
    """All of the load at once, besides two nodes with a stream each way, and clients that only answer pings."""
    rng = random.Random(7)
    port = relay.port
    parts: list[Coroutine[None, None, None]] = [
        steady(port, tally),
        churn(port, tally, rng),
        misuse(port, tally, rng),
        flood(port, tally),
        look(relay, tally),
    ]
    idle: list[Link] = []
    async with node_at(relay.url) as a, node_at(relay.url) as b:
        dialed, accepted = await meet(a, b)
        async with flowing(dialed, accepted, rate=200_000) as flows:
            tasks: list[asyncio.Task[None]] = []
            try:
                for _ in range(IDLE_CLIENTS):
                    idle.append(await opened(port, tally))
                tasks += [asyncio.create_task(part) for part in parts]
                yield flows, tasks
                assert not any(link.transport.is_closing() for link in idle), "a client that answers was let go"
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for link in tally.links:
                    link.transport.abort()


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
async def test_memory_stays_flat_under_mixed_load() -> None:
    """Streams, datagrams, newcomers, breaches, floods and idlers at once: no growth after the warm-up, no byte lost."""
    psutil = pytest.importorskip("psutil", reason="needs psutil (dependency group bench)")
    tally = Tally()
    with RelayProcess(0, *OPTIONS) as relay:
        process = psutil.Process(relay.process.pid)
        async with loaded(relay, tally) as (flows, tasks):
            samples: list[tuple[float, float]] = []
            began = time.monotonic()
            while (at := time.monotonic() - began) < SECONDS:
                for task in tasks:
                    if task.done():
                        task.result()
                samples.append((at, process.memory_info().rss / (1 << 20)))
                await asyncio.sleep(0.25)
            for flow in flows:
                assert flow.received > 50_000 * SECONDS, "the stream of two nodes was starved"
                await flow.end(within=30)
            metrics = await asyncio.to_thread(relay.metrics)
        assert relay.process.poll() is None
        cpu = sum(process.cpu_times()[:2])
        print(f"\n{SECONDS:g} s, {tally}, CPU {100 * cpu / SECONDS:.0f}% of a core")
    quarter = (SECONDS - WARM_UP) / 4
    first = statistics.median(rss for at, rss in samples if WARM_UP <= at < WARM_UP + quarter)
    last = statistics.median(rss for at, rss in samples if at >= SECONDS - quarter)
    print(f"resident {samples[0][1]:.1f} MiB at first, {first:.1f} after the warm-up, {last:.1f} at the end")
    assert last - first < MAX_GROWTH_MIB
    assert min(tally.datagrams, tally.sessions, tally.refused, tally.requests, tally.floods) > 0
    assert metrics["statistics_nodes"] <= 100
    # One client that reads nothing is flooded at a time, and has 4 MiB; all others are up to date.
    assert metrics["queued_bytes"] <= 5 << 20
    for name in ("dropped_packets", "violations", "denied", "throttled", "write_timeouts", "endpoint_gone"):
        assert metrics[f"{name}_total"] > 0, name
