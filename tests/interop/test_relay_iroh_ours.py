"""A node of ours and a real iroh node talk through our relay, dialing in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

import attrs

from tests.interop.peers import IrohPeer
from tests.interop.test_iroh import ALPN, echo, read_datagram
from tests.interop.test_relay_iroh import CONFIG, iroh_peer
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr, NodeId
from tom_relay.server import RelayServer


def config(relay: str, *, direct: bool = False) -> EndpointConfig:
    """An endpoint at a relay; with `direct` off it neither sends nor takes anything else."""
    return EndpointConfig(
        alpns=(ALPN,),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        plugins=("relay",),
        relay=(relay,),
        direct=direct,
    )


@attrs.frozen
class Meeting:
    """A relay, an iroh node at it, and a node of ours at it that echoes and keeps the connections it accepted."""

    relay: RelayServer
    iroh: IrohPeer
    ours: Endpoint
    seen: list[Connection]


@contextlib.asynccontextmanager
async def meeting(*, direct: bool = False) -> AsyncIterator[Meeting]:
    """Both nodes online at a relay of ours."""
    async with RelayServer(CONFIG) as relay:
        with contextlib.ExitStack() as stack:
            peer = await asyncio.to_thread(lambda: stack.enter_context(iroh_peer(relay.url)))
            await peer.online()
            async with Endpoint.bind(config(relay.url, direct=direct)) as ours, asyncio.TaskGroup() as group:
                seen: list[Connection] = []
                async with asyncio.timeout(30):
                    async for addr in ours.watch_addr():
                        if addr.relay_urls:
                            break
                task = group.create_task(echo(ours, seen))
                yield Meeting(relay, peer, ours, seen)
                task.cancel()


async def test_we_dial_iroh_through_the_relay() -> None:
    """With no address but the relay's, streams both small and large, and datagrams, come back over the relay path."""
    async with meeting() as met:
        peer = NodeAddr(NodeId(met.iroh.node_id), relay_urls=(met.relay.url,))
        connection = await met.ours.connect(peer, ALPN, timeout=30)
        assert bytes(connection.remote_node_id) == met.iroh.node_id
        for data in (b"hello", os.urandom(1 << 20)):
            stream = await connection.open_bi()
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(stream.read())
                stream.write(data)
                await stream.drain()
                stream.finish()
            assert answer.result() == data
        data = os.urandom(100_000)
        uni = await connection.open_uni()
        uni.write(data)
        uni.finish()
        assert await (await connection.accept_uni()).read() == hashlib.sha256(data).digest()
        assert await read_datagram(connection, b"x" * 1000) == b"x" * 1000
        assert [path.kind for path in connection.paths() if path.active] == ["relay"]
        assert met.relay.hub.counters.relayed.bytes > 2 << 20
        await connection.close()


async def test_iroh_dials_us_through_the_relay() -> None:
    """iroh knows nothing of us but the relay, and gets back streams and datagrams."""
    async with meeting() as met:
        dialed = await met.iroh.dial(bytes(met.ours.node_id), [], ALPN, relay=met.relay.url)
        assert dialed.remote == bytes(met.ours.node_id)
        for data in (b"hello", os.urandom(1 << 20)):
            assert await met.iroh.stream(dialed, data) == data
        data = os.urandom(100_000)
        assert await met.iroh.uni(dialed, data) == hashlib.sha256(data).digest()
        assert await met.iroh.datagram(dialed, b"x" * 1000) == b"x" * 1000
        (connection,) = met.seen
        assert bytes(connection.remote_node_id) == met.iroh.node_id
        assert [path.kind for path in connection.paths() if path.active] == ["relay"]


async def test_iroh_is_dialed_where_it_is_quickest() -> None:
    """Given both a direct address and the relay, a node of ours reaches iroh, which speaks no disco, and all works."""
    async with meeting(direct=True) as met:
        where = NodeAddr(NodeId(met.iroh.node_id), (met.relay.url,), met.iroh.addresses[:1])
        connection = await met.ours.connect(where, ALPN, timeout=30)
        stream = await connection.open_bi()
        data = os.urandom(1 << 20)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(stream.read())
            stream.write(data)
            await stream.drain()
            stream.finish()
        assert answer.result() == data
        await connection.close()


async def test_iroh_dials_us_with_a_relay_and_an_address() -> None:
    """iroh is given both ways to us, tries both, and gets its data back."""
    async with meeting(direct=True) as met:
        direct = [str(met.ours.local_addrs[0])]
        dialed = await met.iroh.dial(bytes(met.ours.node_id), direct, ALPN, relay=met.relay.url)
        data = os.urandom(1 << 20)
        assert await met.iroh.stream(dialed, data) == data
