"""Our endpoint and a real iroh endpoint dial each other by direct address."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable

import pytest

from tests.interop.peers import IrohPeer, PeerError
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr, NodeId
from tom_connect.exceptions import AlpnError, ConnectionClosedError, PeerIdentityError, TomError
from tom_connect.keys import SecretKey

ALPN = "echo/1"
LOOPBACK = EndpointConfig(alpns=(ALPN,), bind=("127.0.0.1:0",), allow_local=True)


def addr_of(peer: IrohPeer, node_id: bytes | None = None) -> NodeAddr:
    """Return where the peer is, under its own key or another."""
    return NodeAddr(NodeId(node_id or peer.node_id), direct_addrs=peer.addresses[:1])


async def echo_stream(connection: Connection) -> None:
    """Send a bidirectional stream back as it comes."""
    stream = await connection.accept_bi()
    async for chunk in stream:
        stream.write(chunk)
        await stream.drain()
    stream.finish()


async def echo(endpoint: Endpoint, seen: list[Connection]) -> None:
    """Accept connections; echo bidirectional streams and datagrams, answer others with their SHA-256."""

    async def streams(connection: Connection) -> None:
        while True:
            await echo_stream(connection)

    async def uni_streams(connection: Connection) -> None:
        while True:
            digest = hashlib.sha256(await (await connection.accept_uni()).read()).digest()
            answer = await connection.open_uni()
            answer.write(digest)
            answer.finish()

    async def datagrams(connection: Connection) -> None:
        while True:
            connection.send_datagram(await connection.read_datagram())

    async with asyncio.TaskGroup() as group:
        async for incoming in endpoint.accept():
            connection = await incoming.accept()
            seen.append(connection)
            for work in (streams, uni_streams, datagrams):
                group.create_task(until_closed(work(connection)))


async def until_closed(work: Awaitable[None]) -> None:
    """Await work that ends with its connection."""
    with contextlib.suppress(ConnectionClosedError):
        await work


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Endpoint, list[Connection]]]:
    """Run an endpoint of ours that echoes, with the connections that it accepted."""
    async with Endpoint.bind(LOOPBACK) as endpoint, asyncio.TaskGroup() as group:
        seen: list[Connection] = []
        task = group.create_task(echo(endpoint, seen))
        yield endpoint, seen
        task.cancel()


async def read_datagram(connection: Connection, data: bytes) -> bytes:
    """Send a datagram, again if it is lost, until one comes back."""
    for _ in range(10):
        connection.send_datagram(data)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(connection.read_datagram(), 1.0)
    raise AssertionError("ten datagrams had no answer")


async def test_we_dial_iroh(iroh_peer: IrohPeer) -> None:
    """We dial: streams both small and large and datagrams come back, and each side sees the other's key."""
    async with Endpoint.bind(LOOPBACK) as endpoint:
        connection = await endpoint.connect(addr_of(iroh_peer), ALPN)
        assert bytes(connection.remote_node_id) == iroh_peer.node_id
        assert connection.alpn == ALPN
        for data in (b"hello", os.urandom(3 << 20)):
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
        await connection.close(7, "enough")
        accepted = [record for record in await iroh_peer.accepted() if record["remote"] == str(endpoint.node_id)]
    assert [record["alpn"] for record in accepted] == [ALPN]


async def test_iroh_hears_why_we_close(iroh_peer: IrohPeer) -> None:
    """Code and reason of our close reach iroh's application."""
    async with Endpoint.bind(LOOPBACK) as endpoint:
        connection = await endpoint.connect(addr_of(iroh_peer), ALPN)
        await connection.close(7, "enough")
        async with asyncio.timeout(5):
            while True:
                records = await iroh_peer.accepted()
                (record,) = [record for record in records if record["remote"] == str(endpoint.node_id)]
                if reason := record.get("reason"):
                    break
        assert "enough" in reason and "7" in reason


async def test_iroh_dials_us(iroh_peer: IrohPeer) -> None:
    """iroh dials: streams both small and large and datagrams come back, and each side sees the other's key."""
    async with echoing() as (endpoint, seen):
        dialed = await iroh_peer.dial(bytes(endpoint.node_id), [str(endpoint.local_addrs[0])])
        assert (dialed.remote, dialed.alpn) == (bytes(endpoint.node_id), ALPN)
        for data in (b"hello", os.urandom(1 << 20)):
            assert await iroh_peer.stream(dialed, data) == data
        data = os.urandom(100_000)
        assert await iroh_peer.uni(dialed, data) == hashlib.sha256(data).digest()
        assert await iroh_peer.datagram(dialed, b"x" * 1000) == b"x" * 1000
        assert [bytes(connection.remote_node_id) for connection in seen] == [iroh_peer.node_id]
        await iroh_peer.hang_up(dialed, 9, "bye")
        error = await asyncio.wait_for(seen[0].closed(), 5)
        assert isinstance(error, ConnectionClosedError)
        assert "bye" in str(error)


async def test_iroh_hears_that_we_leave(iroh_peer: IrohPeer) -> None:
    """iroh is told when our endpoint closes, and does not wait for a time-out."""
    async with echoing() as (endpoint, _):
        dialed = await iroh_peer.dial(bytes(endpoint.node_id), [str(endpoint.local_addrs[0])])
        assert await iroh_peer.stream(dialed, b"hello") == b"hello"
    assert "closed" in await asyncio.wait_for(iroh_peer.closed(dialed), 5)


async def test_the_wrong_key_is_refused_on_both_sides(iroh_peer: IrohPeer) -> None:
    """Neither side takes another node for the one that it dialed."""
    other = bytes(SecretKey.generate().node_id)
    async with echoing() as (endpoint, seen):
        with pytest.raises(TomError) as caught:
            await endpoint.connect(addr_of(iroh_peer, other), ALPN, timeout=5)
        assert isinstance(caught.value, PeerIdentityError)
        with pytest.raises(PeerError):
            await iroh_peer.dial(other, [str(endpoint.local_addrs[0])], timeout=10)
        assert not seen


async def test_an_unknown_alpn_is_refused_on_both_sides(iroh_peer: IrohPeer) -> None:
    """A protocol that the other side does not speak gives an error that says so."""
    async with echoing() as (endpoint, _):
        with pytest.raises(AlpnError):
            await endpoint.connect(addr_of(iroh_peer), "nobody/1", timeout=5)
        with pytest.raises(PeerError, match=r"(?i)alpn|application protocol|no_application_protocol|120"):
            await iroh_peer.dial(bytes(endpoint.node_id), [str(endpoint.local_addrs[0])], "nobody/1", timeout=10)


async def test_iroh_leaves_a_relay_alone_that_is_a_node(iroh_peer: IrohPeer) -> None:
    """An address with a relay of ours that iroh knows nothing of, and a direct address, is dialed directly."""
    relay = f"tom://{SecretKey.generate().node_id}@127.0.0.1:9"
    async with echoing() as (endpoint, _seen):
        dialed = await iroh_peer.dial(endpoint.node_id.raw, [str(endpoint.local_addrs[0])], relay=relay)
        assert await iroh_peer.stream(dialed, b"directly") == b"directly"
