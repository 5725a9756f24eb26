"""QUIC connections that plugins have of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tom_connect import Endpoint, EndpointConfig, NodeAddr
from tom_connect.abc import DirectConnection, PluginContext, PluginObject
from tom_connect.addr import SocketAddr
from tom_connect.exceptions import DialError, InvalidInputError, NetworkError, PeerIdentityError, PluginError
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import SecretKey

ALPN = "own/1"


class Plugin:
    """Keeps its connections, and serves what it was told to."""

    name = "own"

    def __init__(self) -> None:
        self.connections: Any = None
        """What is tested."""
        self.seen: list[DirectConnection] = []

    @hookimpl
    def tom_service(self, ctx: PluginContext) -> PluginObject:
        """Keep what the context has."""
        self.connections = ctx.connections
        return _Idle()

    async def echo(self, connection: DirectConnection) -> None:
        """Send streams and datagrams back."""
        self.seen.append(connection)
        stream = await connection.accept_bi()
        while data := await stream.read(1000):
            stream.write(data)
            connection.send_datagram(data)


class _Idle(PluginObject):
    pass


@contextlib.asynccontextmanager
async def bound(**fields: Any) -> AsyncIterator[tuple[Endpoint, Plugin]]:
    plugin = Plugin()
    values: dict[str, Any] = {"bind": ("127.0.0.1:0",), "allow_local": True, "persist": False, "plugins": ()}
    async with Endpoint.bind(EndpointConfig(**{**values, "extra_plugins": (plugin,), **fields})) as endpoint:
        yield endpoint, plugin


async def test_a_mere_address_is_enough_and_the_key_is_learned() -> None:
    """Who dials an address learns whose it is, and both streams and datagrams pass, without any entry in the app's."""
    async with bound() as (server, there), bound() as (client, here):
        there.connections.serve(ALPN, there.echo)
        connection = await here.connections.dial(server.local_addrs[0], ALPN)
        assert connection.remote_node_id == server.node_id and connection.remote_addr == server.local_addrs[0]
        stream = await connection.open_bi()
        stream.write(b"hello")
        async with asyncio.timeout(5):
            assert await stream.readexactly(5) == b"hello"
            assert await connection.read_datagram() == b"hello"
        assert there.seen[0].remote_node_id == client.node_id
        assert there.seen[0].remote_addr == client.local_addrs[0]
        await connection.close()


async def test_another_key_than_the_one_named_is_refused() -> None:
    """A node named by its key must prove it."""
    async with bound() as (server, there), bound() as (_client, here):
        there.connections.serve(ALPN, there.echo)
        other = NodeAddr(SecretKey.generate().node_id, (), server.local_addrs)
        with pytest.raises(PeerIdentityError):
            await here.connections.dial(other, ALPN)


async def test_an_anonymous_dial_shows_another_key() -> None:
    """A dial with a fresh key does not show ours."""
    async with bound() as (server, there), bound() as (client, here):
        there.connections.serve(ALPN, there.echo)
        connection = await here.connections.dial(server.local_addrs[0], ALPN, anonymous=True)
        stream = await connection.open_bi()
        stream.write(b"x")
        async with asyncio.timeout(5):
            await stream.readexactly(1)
        assert there.seen[0].remote_node_id != client.node_id


async def test_what_is_sent_to_a_silent_address_is_bounded() -> None:
    """Three datagrams go to an address on the word of others, then none for a while, whatever is asked."""
    received: list[bytes] = []

    class Silent(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            received.append(data)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
    silent = SocketAddr(*transport.get_extra_info("sockname"))
    try:
        async with bound() as (_client, here):
            with pytest.raises(DialError, match="did not answer within"):
                await here.connections.dial(silent, ALPN, timeout=3.0)
            with pytest.raises(DialError, match="a moment ago"):
                await here.connections.dial(silent, ALPN, timeout=3.0)
        assert 1 <= len(received) <= 3 and sum(map(len, received)) <= 3600
    finally:
        transport.close()


async def test_local_addresses_are_not_dialed_on_the_word_of_others() -> None:
    """Without allow_local an address in our own networks is for the user alone to name."""
    async with bound() as (server, there), bound(allow_local=False) as (_client, here):
        there.connections.serve(ALPN, there.echo)
        with pytest.raises(DialError, match="may not be sent to"):
            await here.connections.dial(server.local_addrs[0], ALPN)
        connection = await here.connections.dial(server.local_addrs[0], ALPN, trusted=True)
        await connection.close()


async def test_the_application_does_not_see_what_a_plugin_serves() -> None:
    """The endpoint's own accept() hears of no plugin's connection, and an ALPN has one owner."""
    async with bound(alpns=("app/1",)) as (server, there), bound() as (client, here):
        there.connections.serve(ALPN, there.echo)
        with pytest.raises(PluginError, match="taken"):
            there.connections.serve("app/1", there.echo)
        own = await here.connections.dial(server.local_addrs[0], ALPN)
        dialing = asyncio.create_task(client.connect(NodeAddr(server.node_id, (), server.local_addrs), "app/1"))
        async with asyncio.timeout(5):
            incoming = await anext(server.accept())
            assert incoming.alpn == "app/1"
            await (await incoming.accept()).close()
        await (await dialing).close()
        await own.close()


async def test_what_served_ends_with_the_plugin() -> None:
    """Who stops to serve ends the connections that there are, and takes no more."""
    async with bound() as (server, there), bound() as (_client, here):
        end = there.connections.serve(ALPN, there.echo)
        connection = await here.connections.dial(server.local_addrs[0], ALPN)
        end()
        async with asyncio.timeout(5):
            assert isinstance(await connection.closed(), NetworkError)
        with pytest.raises(DialError):
            await here.connections.dial(server.local_addrs[0], ALPN, timeout=0.5)


async def test_ourselves_and_no_direct_packets() -> None:
    """Our own key can't be dialed, and without direct packets nothing can."""
    async with bound() as (node, here):
        with pytest.raises(InvalidInputError, match="ourselves"):
            await here.connections.dial(NodeAddr(node.node_id, (), node.local_addrs), ALPN)
    async with bound(direct=False) as (node, here):
        with pytest.raises(Exception, match="direct"):
            await here.connections.dial(node.local_addrs[0], ALPN)


async def test_a_peer_that_moves_is_followed() -> None:
    """A client whose NAT gives it another port is answered there."""
    async with bound() as (server, there), bound() as (_client, here):
        there.connections.serve(ALPN, there.echo)
        relay = await _Forwarder.to(server.local_addrs[0])
        try:
            connection = await here.connections.dial(relay.front, ALPN)
            stream = await connection.open_bi()
            stream.write(b"one")
            async with asyncio.timeout(5):
                await stream.readexactly(3)
                before = there.seen[0].remote_addr
                await relay.rebind()
                stream.write(b"two")
                assert await stream.readexactly(3) == b"two"
                assert there.seen[0].remote_addr != before
            await connection.close()
        finally:
            relay.close()


class _Forwarder(asyncio.DatagramProtocol):
    """A NAT of one: passes on from a port of its own, which `rebind` changes."""

    def __init__(self, server: SocketAddr) -> None:
        self.server = server
        self.client: Any = None
        self.inside: Any = None
        self.outside: Any = None

    @classmethod
    async def to(cls, server: SocketAddr) -> _Forwarder:
        made = cls(server)
        loop = asyncio.get_running_loop()
        made.inside, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
        await made.rebind()
        return made

    @property
    def front(self) -> SocketAddr:
        return SocketAddr(*self.inside.get_extra_info("sockname"))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.client = addr
        self.outside.sendto(data, tuple(self.server))

    async def rebind(self) -> None:
        if self.outside is not None:
            self.outside.close()
        forwarder = self

        class Outside(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                forwarder.inside.sendto(data, forwarder.client)

        loop = asyncio.get_running_loop()
        self.outside, _ = await loop.create_datagram_endpoint(Outside, local_addr=("127.0.0.1", 0))

    def close(self) -> None:
        self.inside.close()
        self.outside.close()
