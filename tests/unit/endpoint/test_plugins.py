"""An endpoint with plugins that find, publish, guard, share the socket, or misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import attrs
import pytest

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tom_connect import (
    ConnectionRefusedError,  # noqa: A004
    DialError,
    DiscoveryError,
    Endpoint,
    NodeAddr,
    NodeId,
    SecretKey,
    SocketAddr,
    hookimpl,
)
from tom_connect.abc import (
    ConnectionGuard,
    DatagramProtocol,
    Discovery,
    FoundAddr,
    PluginContext,
    Publisher,
    PublishReport,
)
from tom_connect.record import SignedRecord


class Book(Discovery, Publisher):
    """Finds what it published: a discovery and a publisher in one object, as a real plugin may be."""

    serverless = True

    def __init__(self, records: dict[NodeId, SignedRecord]) -> None:
        self.name = "book"
        self.records = records
        self.started = self.closed = 0

    async def start(self) -> None:
        self.started += 1

    async def aclose(self) -> None:
        self.closed += 1

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        record = self.records.get(node_id)
        if record is not None:
            yield FoundAddr(record.addr, "book", record.timestamp_us)

    async def publish(self, record: SignedRecord) -> PublishReport:
        self.records[record.node_id] = record
        return PublishReport("book", 1)


class BookPlugin:
    def __init__(self, records: dict[NodeId, SignedRecord]) -> None:
        self.book = Book(records)

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        return self.book

    @hookimpl
    def tom_publisher(self, ctx: PluginContext) -> Publisher:
        return self.book


async def test_dial_by_id_through_a_plugin() -> None:
    """A node publishes itself and is found by its id alone; an object that serves two hooks starts and ends once."""
    records: dict[NodeId, SignedRecord] = {}
    plugins = [BookPlugin(records), BookPlugin(records)]
    async with (
        Endpoint.bind(local_config(extra_plugins=(("book", plugins[0]),))) as server,
        Endpoint.bind(local_config(extra_plugins=(("book", plugins[1]),))) as client,
    ):
        await server.watch_published().other_than(())
        assert records[server.node_id].addr == server.node_addr()
        accepting = asyncio.create_task(accept_one(server))
        events: list[object] = []
        connection = await client.connect(str(server.node_id), ALPN, on_progress=events.append)
        assert connection.remote_node_id == server.node_id
        assert [type(event).__name__ for event in events] == ["Resolved", "Connected"]
        await accepting
    assert [(plugin.book.started, plugin.book.closed) for plugin in plugins] == [(1, 1), (1, 1)]


async def test_unknown_node_names_the_sources_that_were_asked() -> None:
    """Nobody knows the node: the error comes at once and names each source with its outcome."""
    config = local_config(extra_plugins=(("book", BookPlugin({})),))
    async with Endpoint.bind(config) as client, Endpoint.bind(local_config()) as other:
        with pytest.raises(DiscoveryError, match="book: nothing found"):
            await client.connect(other.node_id, ALPN)


async def test_local_addresses_of_a_record_are_not_dialed_by_default() -> None:
    """Without allow_local a record's loopback address gets no packet, and the error says why."""
    records: dict[NodeId, SignedRecord] = {}
    async with Endpoint.bind(local_config(extra_plugins=(("book", BookPlugin(records)),))) as server:
        await server.watch_published().other_than(())
        config = local_config(allow_local=False, extra_plugins=(("book", BookPlugin(records)),))
        async with Endpoint.bind(config) as client:
            assert client.node_addr().is_empty()
            with pytest.raises(DialError, match="allow_local"):
                await client.connect(server.node_id, ALPN, timeout=0.3)
        assert not server._driver.links


async def test_found_node_that_starts_late_is_still_reached() -> None:
    """A dial waits for a node whose record is known and which answers only after some seconds."""
    records: dict[NodeId, SignedRecord] = {}
    config = local_config(secret_key=SecretKey.generate(), extra_plugins=(("book", BookPlugin(records)),))
    async with Endpoint.bind(config) as server:
        await server.watch_published().other_than(())
        port = server.local_addrs[0].port
    async with Endpoint.bind(local_config(extra_plugins=(("book", BookPlugin(records)),))) as client:
        dialing = asyncio.create_task(client.connect(server.node_id, ALPN, timeout=20))
        await asyncio.sleep(4.0)
        assert not dialing.done()
        async with Endpoint.bind(attrs.evolve(config, bind=(f"127.0.0.1:{port}",))) as back:
            accepting = asyncio.create_task(accept_one(back))
            assert (await dialing).remote_node_id == server.node_id
            await accepting


async def test_found_node_that_is_gone_is_named_with_its_addresses() -> None:
    """A record whose address is dead: the error lists that address as tried, not as left out."""
    records: dict[NodeId, SignedRecord] = {}
    async with Endpoint.bind(local_config(extra_plugins=(("book", BookPlugin(records)),))) as server:
        await server.watch_published().other_than(())
        addr = server.local_addrs[0]
    async with Endpoint.bind(local_config(extra_plugins=(("book", BookPlugin(records)),))) as client:
        with pytest.raises(DialError, match="no answer") as caught:
            await client.connect(server.node_id, ALPN, timeout=8)
    assert str(addr) in str(caught.value)
    assert "not tried" not in str(caught.value)


async def test_guard_refuses_by_key_and_by_address() -> None:
    """A guard turns away a known key after its handshake, and an address before it."""

    class Guard(ConnectionGuard):
        def __init__(self) -> None:
            self.banned: set[NodeId] = set()
            self.open = True

        def before_handshake(self, remote: object) -> bool:
            return self.open

        def after_handshake(self, node_id: NodeId, alpn: str) -> bool:
            return node_id not in self.banned

    guard = Guard()

    class Plugin:
        @hookimpl
        def tom_connection_guard(self, ctx: PluginContext) -> ConnectionGuard:
            return guard

    async with (
        Endpoint.bind(local_config(extra_plugins=(("guard", Plugin()),))) as server,
        Endpoint.bind(local_config()) as client,
    ):
        guard.banned.add(client.node_id)
        with pytest.raises(ConnectionRefusedError):
            await client.connect(server.node_addr(), ALPN)
        guard.open = False
        with pytest.raises(DialError):
            await client.connect(server.node_addr(), ALPN, timeout=0.3)


async def test_failing_guard_lets_nobody_in() -> None:
    """A guard that raises is reported, and refuses."""

    class Guard(ConnectionGuard):
        def after_handshake(self, node_id: NodeId, alpn: str) -> bool:
            raise RuntimeError("lost the list")

    class Plugin:
        @hookimpl
        def tom_connection_guard(self, ctx: PluginContext) -> ConnectionGuard:
            return Guard()

    async with (
        Endpoint.bind(local_config(extra_plugins=(("guard", Plugin()),))) as server,
        Endpoint.bind(local_config()) as client,
    ):
        with pytest.raises(ConnectionRefusedError):
            await client.connect(server.node_addr(), ALPN)
        assert "lost the list" in next(info.reason for info in server.plugins if info.name == "guard")


async def test_guard_that_can_not_be_made_lets_nobody_in() -> None:
    """A guard plugin whose factory raises leaves the door shut, not open."""

    class Plugin:
        @hookimpl
        def tom_connection_guard(self, ctx: PluginContext) -> ConnectionGuard:
            raise OSError("no list")

    async with (
        Endpoint.bind(local_config(extra_plugins=(("guard", Plugin()),))) as server,
        Endpoint.bind(local_config()) as client,
    ):
        with pytest.raises(DialError):
            await client.connect(server.node_addr(), ALPN, timeout=0.3)


async def test_datagram_protocol_shares_the_socket() -> None:
    """A plugin's datagrams and QUIC pass through one and the same socket."""
    got: asyncio.Queue[tuple[bytes, SocketAddr]] = asyncio.Queue()
    contexts: list[PluginContext] = []

    class Protocol(DatagramProtocol):
        def claims(self, head: bytes) -> bool:
            return head.startswith(b"d1:")

        def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
            for item in datagrams:
                got.put_nowait(item)
            raise RuntimeError("after the fact")

    class Plugin:
        @hookimpl
        def tom_datagram_protocol(self, ctx: PluginContext) -> DatagramProtocol:
            contexts.append(ctx)
            return Protocol()

    config = local_config(extra_plugins=(("shared", Plugin()),))
    async with Endpoint.bind(config) as server, Endpoint.bind(config) as client:
        assert contexts[1].socket.send(b"d1:ping", server.local_addrs[0])
        data, source = await got.get()
        assert data == b"d1:ping"
        assert source == client.local_addrs[0]
        accepting = asyncio.create_task(accept_one(server))
        await client.connect(NodeAddr(server.node_id, (), server.local_addrs), ALPN)
        await accepting


async def test_plugin_that_fails_to_start_is_left_out() -> None:
    """A discovery whose start raises is reported with the reason, and the endpoint works without it."""

    class Broken(Discovery):
        async def start(self) -> None:
            raise OSError("no such luck")

        async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
            raise AssertionError("must not be asked")
            yield

    class Plugin:
        @hookimpl
        def tom_discovery(self, ctx: PluginContext) -> Discovery:
            return Broken()

    async with Endpoint.bind(local_config(extra_plugins=(("broken", Plugin()),))) as endpoint:
        info = next(info for info in endpoint.plugins if info.name == "broken")
        assert "no such luck" in info.reason
        with pytest.raises(DiscoveryError):
            await endpoint.connect(SecretKey.generate().node_id, ALPN)


async def test_task_of_a_plugin_that_fails_is_reported() -> None:
    """A plugin's task that raises is reported as its own, and one that lasts is cancelled with the endpoint."""
    failed = asyncio.Event()
    ended = asyncio.Event()

    class Plugin:
        @hookimpl
        def tom_discovery(self, ctx: PluginContext) -> None:
            async def fail() -> None:
                failed.set()
                raise ValueError("a bad day")

            async def last() -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()

            ctx.create_task(fail(), "failing")
            ctx.create_task(last(), "lasting")

    async with Endpoint.bind(local_config(extra_plugins=(("tasks", Plugin()),))) as endpoint:
        await failed.wait()
        await asyncio.sleep(0)
        assert "a bad day" in next(info.reason for info in endpoint.plugins if info.name == "tasks")
        assert not ended.is_set()
    assert ended.is_set()
