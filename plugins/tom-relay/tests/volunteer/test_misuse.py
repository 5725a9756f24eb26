"""What hostile clients of a volunteer get, and what a hostile volunteer gets from its clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tom_connect import Endpoint
from tom_connect.abc import DirectConnection, DirectConnections, PluginContext, PluginObject
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import ConnectionClosedError, TomError
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId
from tom_relay.client.volunteers.trial import TrialError, stranger_at, volunteer_at
from tom_relay.errors import RelayError
from tom_relay.server import quic
from tom_relay.wire import (
    EndpointGone,
    Ping,
    Pong,
    Restarting,
    SendDatagrams,
    ServerConfirmsAuth,
    decode_from_server,
    encode,
)
from tom_relay.wire.quic import ALPN, DIALECT, CloseCode, FrameReader, on_stream

from .nodes import config, sessions_of, until, volunteer_of, volunteering


class Lent:
    """A plugin that keeps its connections for the test."""

    name = "lent"
    connections: DirectConnections

    @hookimpl
    def tom_service(self, ctx: PluginContext) -> PluginObject | None:
        """Keep them."""
        assert ctx.connections is not None
        self.connections = ctx.connections
        return None


@contextlib.asynccontextmanager
async def hostile(**fields: Any) -> AsyncIterator[DirectConnections]:
    """A node whose QUIC connections a test uses as it likes."""
    lent = Lent()
    async with Endpoint.bind(config(plugins=(), extra_plugins=(lent,), **fields)):
        yield lent.connections


async def admitted(connections: DirectConnections, addr: SocketAddr) -> tuple[DirectConnection, Any, FrameReader]:
    """A connection that the volunteer has let in."""
    connection = await connections.dial(addr, ALPN, anonymous=True)
    stream = await connection.open_bi()
    stream.write(on_stream(encode(Ping(bytes(8)), DIALECT)))
    reader = FrameReader()
    frames: list[bytes] = []
    async with asyncio.timeout(10):
        while len(frames) < 2:
            frames += reader.feed(await stream.read(1000))
    assert [decode_from_server(frame, DIALECT) for frame in frames] == [ServerConfirmsAuth(), Pong(bytes(8))]
    return connection, stream, reader


async def closed_with(connection: DirectConnection) -> int:
    """The code with which the volunteer ends a connection."""
    async with asyncio.timeout(15):
        error = await connection.closed()
    assert isinstance(error, ConnectionClosedError) and error.by_peer, error
    return error.code


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\xff" * 8,
        on_stream(b"\x3f"),
        on_stream(b"\x01" + bytes(97)),
        on_stream(b"\x06" + bytes(40)),
        on_stream(b"\x04" + bytes(20)),
        on_stream(b"\x05" + bytes(33) + b"\0\0abc"),
    ],
)
async def test_rubbish_on_the_stream_ends_the_connection(data: bytes) -> None:
    """A breach of the protocol is met with its code, and costs others nothing."""
    async with volunteering() as (volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        other, _stream, _reader = await admitted(connections, url.node_addr)
        connection, stream, _reader = await admitted(connections, url.node_addr)
        stream.write(data)
        assert await closed_with(connection) == CloseCode.PROTOCOL
        await until(lambda: len(sessions_of(volunteer)) == 1)
        assert not other.is_closed


@pytest.mark.parametrize(
    "data", [b"", b"\x09" + bytes(8), b"\x05" + bytes(40), b"\x04" + bytes(10), b"\x06" + bytes(60)]
)
async def test_rubbish_in_datagrams_ends_the_connection(data: bytes) -> None:
    """So is anything but a whole frame with one datagram in a QUIC datagram."""
    async with volunteering() as (_volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        connection, _stream, _reader = await admitted(connections, url.node_addr)
        connection.send_datagram(data)
        assert await closed_with(connection) == CloseCode.PROTOCOL


async def test_who_opens_no_stream_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing does not stay."""
    monkeypatch.setattr(quic, "HANDSHAKE_TIMEOUT", 0.3)
    async with volunteering() as (volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        connection = await connections.dial(url.node_addr, ALPN)
        assert await closed_with(connection) == CloseCode.PROTOCOL
        assert sessions_of(volunteer).counters["no stream in time"] == 1


async def test_one_host_gets_few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further connections of one IP address are refused; when one ends there is room again."""
    monkeypatch.setattr(quic, "MAX_PER_HOST", 2)
    async with volunteering() as (_volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        first, *_ = await admitted(connections, url.node_addr)
        await admitted(connections, url.node_addr)
        third = await connections.dial(url.node_addr, ALPN, anonymous=True)
        assert await closed_with(third) == CloseCode.REFUSED
        await first.close()

        async def again() -> bool:
            with contextlib.suppress(TomError, AssertionError):
                await admitted(connections, url.node_addr)  # type: ignore[arg-type]
                return True
            return False

        async with asyncio.timeout(10):
            while not await again():
                pass


async def test_datagrams_to_nobody_are_answered_once_a_second() -> None:
    """A flood for a node that is not there gives one small frame a second, and reaches nobody."""
    async with volunteering() as (volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        connection, stream, reader = await admitted(connections, url.node_addr)
        for _ in range(50):
            connection.send_datagram(encode(SendDatagrams(bytes(32), bytes(900)), DIALECT))
            await connection.datagrams_sent(10)
        await until(lambda: volunteer_of(volunteer).hub.counters.dropped["unknown_destination"] >= 40)
        async with asyncio.timeout(5):
            frames = reader.feed(await stream.read(10_000))
        assert [decode_from_server(frame, DIALECT) for frame in frames] == [EndpointGone(bytes(32))]


async def test_who_is_over_its_rate_loses_datagrams() -> None:
    """A client that does not slow down is not relayed beyond its rate, and the volunteer keeps nothing for it."""
    async with volunteering(client_rate=1024) as (volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        connection, _stream, _reader = await admitted(connections, url.node_addr)
        target, *_ = await admitted(connections, url.node_addr)
        assert target.local_node_id != connection.local_node_id
        hub = volunteer_of(volunteer).hub
        for _ in range(1400):
            connection.send_datagram(encode(SendDatagrams(target.local_node_id.raw, bytes(1000)), DIALECT))
            await connection.datagrams_sent(10)
        await until(lambda: sessions_of(volunteer).counters["datagrams beyond the rate"] > 0)
        assert hub.counters.relayed.bytes < 1_200_000 and hub.counters.told_limited == 1


async def test_clients_hear_that_a_volunteer_leaves() -> None:
    """When its endpoint is closed a volunteer says so on the stream, and ends connections with the code for it."""
    async with hostile() as connections:
        async with volunteering() as (_volunteer, url):
            assert url.node_addr is not None
            connection, stream, reader = await admitted(connections, url.node_addr)
            reading = asyncio.create_task(stream.read(1000))
            await asyncio.sleep(0)
        frames = reader.feed(await reading)
        assert isinstance(decode_from_server(frames[0], DIALECT), Restarting)
        assert await closed_with(connection) == CloseCode.RESTARTING


class _Scripted:
    """A node that speaks our ALPN and answers as a test likes."""

    name = "scripted"

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.seen: list[NodeId] = []

    @hookimpl
    def tom_service(self, ctx: PluginContext) -> PluginObject | None:
        """Serve."""
        assert ctx.connections is not None
        ctx.connections.serve(ALPN, self._serve)
        return None

    async def _serve(self, connection: DirectConnection) -> None:
        self.seen.append(connection.remote_node_id)
        stream = await connection.accept_bi()
        stream.write(self._answer)
        await connection.closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00",
        b"\xff" * 8,
        on_stream(encode(ServerConfirmsAuth(), DIALECT)),
        on_stream(encode(Pong(bytes(8)), DIALECT)),
        on_stream(b"\x03\x04full"),
        on_stream(encode(ServerConfirmsAuth(), DIALECT)) + on_stream(b"\x3f") * 50,
    ],
)
async def test_a_bad_relay_fails_its_test(answer: bytes) -> None:
    """Whatever it answers, a node that is no sound relay is found out within seconds, by an error and no other."""
    fields = {"bind": ("127.0.0.2:0",), "addr_deny": (), "plugins": ()}
    async with Endpoint.bind(config(extra_plugins=(_Scripted(answer),), **fields)) as bad, hostile() as connections:
        async with asyncio.timeout(20):
            with pytest.raises((RelayError, TomError)):
                await volunteer_at(connections, bad.local_addrs[0])


async def test_no_volunteer_learns_for_whom_it_is_tested() -> None:
    """Each connection of a test has a fresh key, before it is used and while it is: it can't spare its victim alone."""
    scripted, lent = _Scripted(on_stream(encode(ServerConfirmsAuth(), DIALECT))), Lent()
    fields = {"bind": ("127.0.0.2:0",), "addr_deny": (), "plugins": ()}
    async with (
        Endpoint.bind(config(extra_plugins=(scripted,), **fields)) as relay,
        Endpoint.bind(config(plugins=(), extra_plugins=(lent,))) as node,
    ):
        where = relay.local_addrs[0]
        with pytest.raises(TomError):
            await volunteer_at(lent.connections, where)
        async with stranger_at(lent.connections, RelayUrl.of_node(relay.node_id, where)):
            pass
        assert len(set(scripted.seen)) == len(scripted.seen) == 3 and node.node_id not in scripted.seen


async def test_it_must_pass_on_both_ways() -> None:
    """One that brings the first of two what the second says, and not the other way round, fails, whichever is first."""
    for number in (0, 1):
        async with volunteering() as (volunteer, url), hostile() as connections:
            assert url.node_addr is not None
            hub = volunteer_of(volunteer).hub
            forward, clients = hub._forward, []

            def one_way(client: Any, *args: Any, forward: Any = forward, clients: list[Any] = clients) -> None:
                if client not in clients:
                    clients.append(client)
                if clients.index(client) == number:  # noqa: B023 - it is called in this turn alone
                    forward(client, *args)

            hub._forward = one_way  # type: ignore[method-assign]
            with pytest.raises(TrialError, match="passes nothing on"):
                await volunteer_at(connections, url.node_addr)


async def test_a_slow_volunteer_passes_with_patience() -> None:
    """One that passes on what it gets after three seconds fails at first, and not where its tester has patience."""
    async with volunteering() as (volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        hub, loop = volunteer_of(volunteer).hub, asyncio.get_running_loop()
        forward = hub._forward
        hub._forward = lambda *args: loop.call_later(3.0, forward, *args)  # type: ignore[assignment,method-assign]
        with pytest.raises(TrialError, match="too slowly"):
            await volunteer_at(connections, url.node_addr)
        assert (await volunteer_at(connections, url.node_addr, patience=20.0)).url == url


async def test_silence_is_a_failure_too() -> None:
    """A volunteer that lets everybody in and passes nothing on fails, and says which it was."""
    async with volunteering() as (volunteer, url), hostile() as connections:
        assert url.node_addr is not None
        assert (await volunteer_at(connections, url.node_addr)).url == url
        volunteer_of(volunteer).hub._forward = lambda *_args: None  # type: ignore[method-assign]
        with pytest.raises(TrialError, match="passes nothing on"):
            await volunteer_at(connections, url.node_addr)
