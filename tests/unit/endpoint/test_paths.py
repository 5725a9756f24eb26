"""Paths that die, come back and grow narrow under a live stream, between real endpoints."""

from __future__ import annotations

import asyncio
import hashlib
import time

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tests.unit.endpoint.wires import Wire, wires_to
from tom_connect import Connection, Endpoint, NodeAddr
from tom_connect.holepunch.events import PathSelected

CHUNK = bytes(range(256)) * 64


class Stream:
    """Sends chunks at a steady pace and measures the longest gap at the receiver."""

    def __init__(self, sender: Connection, receiver: Connection) -> None:
        self._sender, self._receiver = sender, receiver
        self.sent = hashlib.sha256()
        self.got = hashlib.sha256()
        self.longest_gap = 0.0
        self.received = 0

    async def send(self, seconds: float) -> None:
        stream = await self._sender.open_uni()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stream.write(CHUNK)
            self.sent.update(CHUNK)
            await stream.drain()
            await asyncio.sleep(0.01)
        stream.finish()
        await stream.wait_closed()

    async def receive(self) -> None:
        stream = await self._receiver.accept_uni()
        last = time.monotonic()
        async for chunk in stream:
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last)
            last = now
            self.got.update(chunk)
            self.received += len(chunk)


def used(connection: Connection, wires: list[Wire]) -> Wire:
    """The wire that carries the connection now."""
    active = next(path for path in connection.paths() if path.active)
    return next(wire for wire in wires if wire.addr == active.addr)


async def test_cut_path_is_left_for_another_without_losing_a_byte() -> None:
    """When the path in use is cut under a live stream, traffic goes on over the other within two seconds."""
    async with (
        Endpoint.bind(local_config()) as server,
        Endpoint.bind(local_config(allow_local=False)) as client,
        wires_to(server.local_addrs[0], 2) as wires,
    ):
        accepting = asyncio.create_task(accept_one(server))
        dialed = await client.connect(NodeAddr(server.node_id, (), [wire.addr for wire in wires]), ALPN)
        accepted = await accepting
        flow = Stream(dialed, accepted)
        with dialed.path_events() as events:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(flow.send(4.0))
                group.create_task(flow.receive())
                await asyncio.sleep(1.0)
                broken = used(dialed, wires)
                broken.cut = True
            heard = list(events._events)
        assert flow.got.digest() == flow.sent.digest()
        assert flow.longest_gap < 2.0
        selected = [event for event in heard if isinstance(event, PathSelected)]
        assert selected
        assert selected[-1].path != broken.addr


async def test_connection_outlives_an_outage() -> None:
    """Three seconds without any path end in a stream that goes on within a second, not after a doubled time-out."""
    async with (
        Endpoint.bind(local_config()) as server,
        Endpoint.bind(local_config(allow_local=False)) as client,
        wires_to(server.local_addrs[0], 1) as wires,
    ):
        accepting = asyncio.create_task(accept_one(server))
        dialed = await client.connect(NodeAddr(server.node_id, (), [wires[0].addr]), ALPN)
        accepted = await accepting
        flow = Stream(dialed, accepted)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(flow.send(5.0))
            group.create_task(flow.receive())
            await asyncio.sleep(0.5)
            wires[0].cut = True
            await asyncio.sleep(3.0)
            wires[0].cut = False
        assert flow.got.digest() == flow.sent.digest()
        assert 2.5 < flow.longest_gap < 4.5


async def test_path_that_grows_narrow_falls_back_to_small_packets() -> None:
    """Packets that grew to what the path takes shrink again when larger ones begin to vanish, and nothing is lost."""
    async with (
        Endpoint.bind(local_config()) as server,
        Endpoint.bind(local_config(allow_local=False)) as client,
        wires_to(server.local_addrs[0], 1) as wires,
    ):
        accepting = asyncio.create_task(accept_one(server))
        dialed = await client.connect(NodeAddr(server.node_id, (), [wires[0].addr]), ALPN)
        accepted = await accepting
        flow = Stream(dialed, accepted)
        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            group.create_task(flow.send(4.0))
            group.create_task(flow.receive())
            await asyncio.sleep(1.0)
            assert dialed.stats().mtu > 1400
            wires[0].width = 1250
        assert flow.got.digest() == flow.sent.digest()
        assert dialed.stats().mtu <= 1250
