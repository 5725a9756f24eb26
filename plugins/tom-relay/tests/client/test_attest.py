"""A relay's word on where a peer is: asked for and answered between endpoints, through a proxy that tells addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import attrs
import pytest

from tom_connect import Connection, Endpoint, NodeId, RelayUrl
from tom_connect.holepunch.path import RelayPath
from tom_relay.server import RelayServer, RelayServerConfig

from .meeting import at_relay, config, meet, until


@attrs.define
class TellingProxy:
    """A proxy that tells the relay behind it that the first client comes from 198.51.100.1, the next from .2."""

    relay: RelayServer
    url: str = ""
    clients: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(*_host_and_port(self.relay))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.clients += head.startswith(b"GET /relay ")
            back.write(head[:-2] + b"X-Forwarded-For: 198.51.100.%d\r\n\r\n" % self.clients)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, back))
                group.create_task(_pump(onward, writer))
        finally:
            back.close()
            writer.close()


def _host_and_port(relay: RelayServer) -> tuple[str, int]:
    return relay.addrs[0].host, relay.addrs[0].port


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[TellingProxy]:
    """Before a relay that believes it."""
    options = RelayServerConfig.dev(listen=("127.0.0.1:0",), trust_forwarded=("127.0.0.1",))
    async with RelayServer(options) as relay:
        proxy = TellingProxy(relay)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        proxy.url = f"http://{host}:{port}/"
        async with server:
            yield proxy


def attested(endpoint: Endpoint) -> list[tuple[NodeId, str]]:
    """What relays say from now on."""
    told: list[tuple[NodeId, str]] = []
    endpoint._magic.relays.attested = lambda node_id, ip: told.append((node_id, ip))
    return told


async def talked(dialed: Connection, accepted: Connection) -> None:
    """Wait until a datagram has come back: what either side sent before has passed the relay."""
    dialed.send_datagram(b"ping")
    assert await asyncio.wait_for(accepted.read_datagram(), 30) == b"ping"
    accepted.send_datagram(b"pong")
    assert await asyncio.wait_for(dialed.read_datagram(), 30) == b"pong"


async def test_two_nodes_learn_where_the_other_is(proxy: TellingProxy) -> None:
    """Nodes that talk through a relay of theirs learn from it the address from which the other is connected."""
    async with at_relay(proxy.url, direct=True) as a, at_relay(proxy.url, direct=True) as b:
        of_a, of_b = attested(a), attested(b)
        await talked(*await meet(a, b))
        url = RelayUrl.parse(proxy.url)
        a._magic.relays.attest(RelayPath(url, b.node_id))
        b._magic.relays.attest(RelayPath(url, a.node_id))
        await until(lambda: bool(of_a and of_b))
        assert of_a == [(b.node_id, "198.51.100.2")]
        assert of_b == [(a.node_id, "198.51.100.1")]


async def test_a_relay_that_a_peer_named_attests_nothing(proxy: TellingProxy) -> None:
    """Where the dialer knows the relay from the peer's address alone, it is not even asked."""
    async with at_relay(proxy.url, direct=True) as server, Endpoint.bind(config(direct=True)) as dialer:
        told = attested(dialer)
        ends = await meet(dialer, server)
        await talked(*ends)
        dialer._magic.relays.attest(RelayPath(RelayUrl.parse(proxy.url), server.node_id))
        await talked(*ends)
        assert set(proxy.relay.hub.counters.addresses.values()) == {0}
        assert told == []


async def test_without_a_trusted_proxy_loopback_is_no_address(relay: RelayServer) -> None:
    """A relay on loopback may stand behind a proxy that says nothing: it is asked and does not answer."""
    async with at_relay(relay.url, direct=True) as a, at_relay(relay.url, direct=True) as b:
        told = attested(a)
        ends = await meet(a, b)
        await talked(*ends)
        a._magic.relays.attest(RelayPath(RelayUrl.parse(relay.url), b.node_id))
        await until(lambda: relay.hub.counters.addresses["withheld"] == 1)
        await talked(*ends)
        assert told == []


async def test_who_takes_no_direct_packets_is_not_told_of(proxy: TellingProxy) -> None:
    """A node with `direct` off talks through the relay, in a dialect in which nobody learns where it is."""
    async with at_relay(proxy.url, direct=True) as a, at_relay(proxy.url) as hidden:
        told = attested(a)
        ends = await meet(a, hidden)
        await talked(*ends)
        assert proxy.relay.sessions.counters.authenticated == {
            "tom-relay-v2": 1,
            "iroh-relay-v2": 1,
            "iroh-relay-v1": 0,
            "tom-relay-v1": 0,
        }
        a._magic.relays.attest(RelayPath(RelayUrl.parse(proxy.url), hidden.node_id))
        await until(lambda: proxy.relay.hub.counters.addresses["withheld"] == 1)
        await talked(*ends)
        assert told == []
