"""What a volunteer relay carries: each datagram for itself, or all on one stream."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

from benchmarks.report import Bench, Column, Options, Report, Row
from benchmarks.volunteers.lossy import LossyWay
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr
from tom_connect.addr import RelayUrl
from tom_relay.volunteer.config import RelayForOthersConfig
from tom_relay.wire.quic import Way

ALPN = "bench/1"
OURS, STREAM = "tom-relay, QUIC datagrams", "the same frames on one stream"
DELAY = 0.0125
"""Seconds each way between the sender and the volunteer."""


def _config(**fields: Any) -> EndpointConfig:
    values: dict[str, Any] = {
        "alpns": (ALPN,),
        "bind": ("127.0.0.1:0",),
        "addr_deny": ("127.0.0.1/32",),
        "allow_local": True,
        "persist": False,
        "plugins": ("relay", "relay-volunteer"),
        "watch_network": False,
    }
    return EndpointConfig(**{**values, **fields})


@contextlib.asynccontextmanager
async def _relayed(loss: float, seed: int) -> AsyncIterator[tuple[Connection, Connection]]:
    """A connection through a volunteer, both ends; what its dialer sends is delayed, and lost at a rate."""
    limits = RelayForOthersConfig(enabled=True, announce=False, client_rate=1 << 40, rate=1 << 40)
    serving = _config(bind=("127.0.0.2:0",), addr_deny=(), plugin_configs={"relay_for_others": limits})
    async with Endpoint.bind(serving) as volunteer:
        place = volunteer.local_addrs[0]
        way = LossyWay(place, delay=DELAY, loss=loss, seed=seed)
        await way.open()
        near, far = RelayUrl.of_node(volunteer.node_id, place), RelayUrl.of_node(volunteer.node_id, way.front)
        try:
            async with Endpoint.bind(_config(relay=(str(near),))) as there, Endpoint.bind(_config()) as here:
                async with asyncio.timeout(20):
                    async for addr in there.watch_addr():
                        if addr.relay_urls:
                            break
                    dialing = asyncio.create_task(here.connect(NodeAddr(there.node_id, (far,)), ALPN, timeout=20))
                    accepted = await (await anext(there.accept())).accept()
                yield await dialing, accepted
        finally:
            way.close()


async def _latencies(here: Connection, there: Connection, count: int) -> tuple[list[float], float]:
    """Milliseconds on the way of datagrams sent every 10 ms, and the share that arrived."""
    taken: list[float] = []

    async def take() -> None:
        while True:
            sent_at = struct.unpack("d", (await there.read_datagram())[:8])[0]
            taken.append((time.perf_counter() - sent_at) * 1000)

    taking = asyncio.create_task(take())
    for _ in range(count):
        here.send_datagram(struct.pack("d", time.perf_counter()) + bytes(992))
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    return sorted(taken), len(taken) / count


async def _throughput(here: Connection, there: Connection, size: int) -> float:
    """Megabytes a second."""
    began = time.perf_counter()
    stream = await here.open_uni()
    stream.write(bytes(size))
    stream.finish()
    async with asyncio.timeout(120):
        await (await there.accept_uni()).read()
    return size / (time.perf_counter() - began) / 1e6


async def run(options: Options) -> Report:
    """Send datagrams, and then a file, through a volunteer that is 25 ms away, with and without loss."""
    rows = [Row(name) for name in (OURS, STREAM)]
    report = Report(
        "volunteer-relay",
        f"through a volunteer relay with {2000 * DELAY:.0f} ms RTT; loss on the sender's side",
        [
            Column("lossless_p99", "datagrams p99, ms"),
            Column("lossy_p50", "3% loss: p50, ms"),
            Column("lossy_p99", "p99, ms"),
            Column("arrived", "arrived, %", more_is_better=True),
            Column("lossless_rate", "file, MB/s", more_is_better=True),
            Column("lossy_rate", "1% loss: MB/s", more_is_better=True, digits=2),
        ],
        rows,
        STREAM,
        notes=["three endpoints and the way between them run in one process: rates are those of a busy core"],
    )
    count, size = options.pick(500, 20), options.pick(8 << 20, 1 << 16)
    for number in range(options.count(3)):
        for row in rows:
            with contextlib.ExitStack() as stack:
                if row.name == STREAM:
                    for module in ("client", "server"):
                        stack.enter_context(mock.patch(f"tom_relay.{module}.quic.way_of", return_value=Way.STREAM))
                async with _relayed(0.0, number) as (here, there):
                    taken, _ = await _latencies(here, there, count)
                    row.add(lossless_p99=taken[len(taken) * 99 // 100])
                    row.add(lossless_rate=await _throughput(here, there, size))
                async with _relayed(0.03, number) as (here, there):
                    taken, arrived = await _latencies(here, there, count)
                    row.add(lossy_p50=taken[len(taken) // 2], lossy_p99=taken[len(taken) * 99 // 100])
                    row.add(arrived=100 * arrived)
                async with _relayed(0.01, number) as (here, there):
                    row.add(lossy_rate=await _throughput(here, there, size // 4))
    ours, stream = report.value(OURS, "lossy_p99"), report.value(STREAM, "lossy_p99")
    report.aim("with loss, p99 below that of one stream", ours, lambda a, b: a < b, stream)
    return report


BENCH = Bench("volunteer-relay", "latency and throughput through a volunteer relay: QUIC datagrams or one stream", run)
