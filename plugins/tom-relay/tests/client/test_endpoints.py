"""Endpoints that meet through relays: dialing, moving to a direct path and back, relays that go and come."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time

import pytest

from tom_connect import Connection, DialError, Endpoint, NodeAddr, SecretKey
from tom_connect.abc import Discovery, FoundAddr
from tom_connect.discovery import DiscoveryService
from tom_relay.server import RelayServer, RelayServerConfig

from .meeting import ALPN, at_relay, config, home, kind, meet, until

SLACK = 5
"""Times longer than usual that something may take here: the machine may be busy. What is promised is shown on a virtual
clock, by the tests of the session and of the core."""


class Flow:
    """Bytes sent on one stream without a pause, and hashed on both ends."""

    def __init__(self, sender: Connection, receiver: Connection) -> None:
        self.sent, self.got = hashlib.sha256(), hashlib.sha256()
        self.received = 0
        self._stop = False
        self._tasks = (asyncio.create_task(self._send(sender)), asyncio.create_task(self._receive(receiver)))

    async def _send(self, connection: Connection) -> None:
        stream = await connection.open_uni()
        while not self._stop:
            block = os.urandom(16_384)
            self.sent.update(block)
            stream.write(block)
            await stream.drain()
            await asyncio.sleep(0.005)
        stream.finish()
        await stream.wait_closed()

    async def _receive(self, connection: Connection) -> None:
        stream = await connection.accept_uni()
        async for data in stream:
            self.got.update(data)
            self.received += len(data)

    async def more(self, size: int = 100_000, *, within: float = 30.0) -> None:
        """Wait until so many more bytes have arrived."""
        goal = self.received + size
        async with asyncio.timeout(within):
            while self.received < goal:
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Stop, and see that nothing was lost or changed."""
        self._stop = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)
        assert self.got.digest() == self.sent.digest()
        assert self.received > 0


async def test_two_nodes_talk_through_a_relay_alone(relay: RelayServer) -> None:
    """Streams and datagrams pass between nodes that neither send nor take direct packets."""
    async with at_relay(relay.url) as a, at_relay(relay.url) as b:
        assert a.node_addr().direct_addrs == ()
        dialed, accepted = await meet(a, b)
        assert (kind(dialed), kind(accepted)) == ("relay", "relay")
        accepted.send_datagram(b"hello")
        assert await asyncio.wait_for(dialed.read_datagram(), 30) == b"hello"
        flow = Flow(dialed, accepted)
        await flow.more(1_000_000)
        await flow.end()
        assert relay.hub.counters.relayed.bytes > 1_000_000


async def test_batches_of_datagrams_travel_in_one_frame(relay: RelayServer) -> None:
    """Under load the relay handles fewer frames than packets."""
    async with at_relay(relay.url) as a, at_relay(relay.url) as b:
        dialed, accepted = await meet(a, b)
        stream = await dialed.open_uni()
        data = os.urandom(3_000_000)
        reading = asyncio.create_task(_read(accepted))
        stream.write(data)
        stream.finish()
        assert await asyncio.wait_for(reading, 60) == data
        counters = relay.hub.counters
        assert counters.relayed.packets > 2 * counters.frames_received


async def _read(connection: Connection) -> bytes:
    return await (await connection.accept_uni()).read()


async def test_the_home_relay_is_part_of_our_address(relay: RelayServer) -> None:
    """It is published with the direct addresses, and not before it is connected."""
    async with Endpoint.bind(config(relay.url, direct=True)) as endpoint:
        assert endpoint.node_addr().relay_urls == ()
        addr = await home(endpoint)
        assert [str(url) for url in addr.relay_urls] == [relay.url.rstrip("/") + "/"]
        assert addr.direct_addrs
        (info,) = endpoint.relays()
        assert info.home and info.connected and info.kind == "configured"
        await until(lambda: endpoint.relays()[0].rtt is not None)


async def test_no_relay_at_all_is_valid() -> None:
    """With the plugin installed and no relay named, nothing is connected to and direct dials work."""
    async with Endpoint.bind(config(direct=True)) as a, Endpoint.bind(config(direct=True)) as b:
        dialed, _ = await meet(a, b, b.node_addr())
        assert kind(dialed) == "direct"
        assert a.relays() == []


async def test_a_relay_that_the_dialer_was_not_told_of_is_used(relay: RelayServer) -> None:
    """Whoever dials needs no relay of its own: it connects to that of the node."""
    async with at_relay(relay.url) as server, Endpoint.bind(config()) as dialer:
        dialed, accepted = await meet(dialer, server)
        assert [path.kind for path in dialed.paths()] == ["relay"]
        assert [info.kind for info in dialer.relays()] == ["found"]
        assert dialer.node_addr().relay_urls == ()
        assert kind(accepted) == "relay"


async def test_nodes_move_from_relay_to_direct_path_under_load(relay: RelayServer) -> None:
    """Dialed through the relay, nodes tell each other their addresses over it and go direct; no byte is lost."""
    async with at_relay(relay.url, direct=True) as a, at_relay(relay.url, direct=True) as b:
        dialed, accepted = await meet(a, b)
        flow = Flow(dialed, accepted)
        await until(lambda: kind(dialed) == kind(accepted) == "direct")
        async with asyncio.timeout(60):
            passed = 500_000
            while passed >= 100_000:  # while in doubt, both paths carry the same
                before = relay.hub.counters.relayed.bytes
                await flow.more(500_000)
                passed = relay.hub.counters.relayed.bytes - before
        await flow.end()


async def test_back_to_the_relay_when_the_direct_path_dies_and_direct_again(relay: RelayServer) -> None:
    """Traffic is back over the relay within 2 s, direct once that works again, and nothing is lost."""
    async with at_relay(relay.url, direct=True) as a, at_relay(relay.url, direct=True) as b:
        dialed, accepted = await meet(a, b)
        await until(lambda: kind(dialed) == kind(accepted) == "direct")
        flow = Flow(dialed, accepted)
        await flow.more()
        holes = [_Hole(endpoint) for endpoint in (a, b)]
        began = time.monotonic()
        await until(lambda: kind(dialed) == "relay")
        await flow.more(50_000)
        assert time.monotonic() - began < 2.0 * SLACK
        for hole in holes:
            hole.mend()
        await until(lambda: kind(dialed) == "direct", within=30)
        await flow.more()
        await flow.end()


class _Hole:
    """Swallows all that an endpoint's UDP sockets send."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._sockets = endpoint._magic.udp_sockets
        for sock in self._sockets:
            sock.send = lambda *_args: None  # type: ignore[method-assign]
            sock.send_one = lambda *_args: True  # type: ignore[method-assign]

    def mend(self) -> None:
        for sock in self._sockets:
            del sock.send, sock.send_one  # type: ignore[attr-defined]


@pytest.mark.parametrize("trusted", [True, False], ids=["given", "found"])
async def test_dead_addresses_do_not_hold_up_a_living_relay(relay: RelayServer, trusted: bool) -> None:
    """A record whose direct addresses are dead but whose relay lives connects within 2 s."""
    async with at_relay(relay.url) as server, Endpoint.bind(config(direct=True)) as dialer:
        dead = [f"127.0.0.1:{port}" for port in range(9, 17)]
        where = NodeAddr(server.node_id, server.node_addr().relay_urls, dead)
        began = time.monotonic()
        if trusted:
            dialed, _ = await meet(dialer, server, where)
        else:
            dialer._discovery = _book(where)
            dialed, _ = await meet(dialer, server, NodeAddr(server.node_id))
        assert time.monotonic() - began < 2.0 * SLACK
        assert kind(dialed) == "relay"


def _book(addr: NodeAddr) -> DiscoveryService:
    return DiscoveryService([("book", _Book(addr))], report=lambda *_: None)


class _Book(Discovery):
    name, serverless = "book", True

    def __init__(self, addr: NodeAddr) -> None:
        self._addr = addr

    async def resolve(self, _node_id: object):  # type: ignore[no-untyped-def]
        yield FoundAddr(self._addr, "book", 1)


async def test_a_relay_that_dies_under_traffic_and_comes_back() -> None:
    """The connection goes on within 5 s after the relay's port answers again, and its streams are whole."""
    first = RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",)))
    await first.start()
    port = first.addrs[0].port
    async with at_relay(first.url) as a, at_relay(first.url) as b:
        dialed, accepted = await meet(a, b)
        flow = Flow(dialed, accepted)
        await flow.more()
        await _kill(first)
        await asyncio.sleep(1.5)
        async with RelayServer(RelayServerConfig.dev(listen=(f"127.0.0.1:{port}",))):
            began = time.monotonic()
            await flow.more()
            assert time.monotonic() - began < 2.0 * SLACK
            await flow.end()


async def _kill(server: RelayServer) -> None:
    """Drop every connection without a word, as a killed process does."""
    for listener in server._servers:
        listener.close()
    for connection in list(server.gate.proven.values()):
        connection.abort()
    await server.stop()


async def test_a_second_relay_takes_over() -> None:
    """Nodes that know two relays are back over the other within 5 s of their home's death, and publish it."""
    options = RelayServerConfig.dev(listen=("127.0.0.1:0",))
    async with (
        RelayServer(options) as first,
        RelayServer(options) as second,
        at_relay(first.url) as a,
        at_relay(first.url) as b,
    ):
        for endpoint in (a, b):
            transport = endpoint._own.relays[0][1]
            await _also(transport, second.url)
        dialed, accepted = await meet(a, b)
        flow = Flow(dialed, accepted)
        await until(lambda: sum(path.rtt is not None for path in dialed.paths()) == 2)
        await flow.more()
        dead = a.node_addr().relay_urls[0]
        began = time.monotonic()
        await _kill(first if str(dead).rstrip("/") == first.url else second)
        await flow.more()
        assert time.monotonic() - began < 2.0 * SLACK
        assert kind(dialed) == "relay"
        await home(a, other_than=(dead,))
        await flow.end()


async def _also(transport: object, url: str) -> None:
    """Configure one more relay, which is farther away."""
    from tom_connect import RelayUrl
    from tom_relay.client.maps import RelayEntry

    transport._connect(RelayEntry(RelayUrl.parse(url)), trusted=True)  # type: ignore[attr-defined]
    await until(lambda: all(info.connected for info in transport.relays()))  # type: ignore[attr-defined]


async def test_a_graceful_restart_is_honoured(relay: RelayServer) -> None:
    """After Restarting the node comes back when the relay asked for it, and has its home again."""
    async with at_relay(relay.url) as endpoint:
        port = relay.addrs[0].port
        await relay.stop()
        await until(lambda: not endpoint.relays()[0].connected)
        async with RelayServer(RelayServerConfig.dev(listen=(f"127.0.0.1:{port}",))):
            await until(lambda: endpoint.relays()[0].connected)
            await home(endpoint)


async def test_a_relay_that_refuses_says_why() -> None:
    """The reason of a refusal is shown, and the node has no home there."""
    async with (
        RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",), access="token", tokens=("secret",))) as relay,
        Endpoint.bind(config(relay.url)) as endpoint,
    ):
        await until(lambda: endpoint.relays()[0].problem is not None)
        assert "token" in str(endpoint.relays()[0].problem)
        assert endpoint.node_addr().relay_urls == ()


async def test_a_token_opens_the_relay() -> None:
    """The configured token is shown to configured relays, and to no others."""
    from tom_relay.client.config import RelayClientConfig

    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",), access="token", tokens=("s3",))) as relay:
        options = {"relay_client": RelayClientConfig(token="s3")}
        async with at_relay(relay.url, plugin_configs=options) as server:
            async with Endpoint.bind(config(plugin_configs=options)) as other:
                with pytest.raises(DialError):
                    await other.connect(NodeAddr(server.node_id, (relay.url,)), ALPN, timeout=1.5)
                await until(lambda: "token" in str(other.relays()[0].problem))


async def test_a_record_does_not_lead_into_our_own_networks(relay: RelayServer) -> None:
    """Without allow_local a relay on this machine that a record names is not connected to; the caller's own is."""
    target = SecretKey.generate().node_id
    async with Endpoint.bind(config(allow_local=False)) as endpoint:
        port = relay.addrs[0].port
        urls = (relay.url, f"http://localhost:{port}", f"http://[::1]:{port}", f"http://2130706433:{port}")
        endpoint._discovery = _book(NodeAddr(target, urls))
        with pytest.raises(DialError):
            await endpoint.connect(target, ALPN, timeout=1)
        assert endpoint.relays() == []
        assert relay.gate.counters.accepted == 0
        with pytest.raises(DialError):
            await endpoint.connect(NodeAddr(target, (relay.url,)), ALPN, timeout=1)
        await until(lambda: [info.connected for info in endpoint.relays()] == [True])


async def test_network_changed_reconnects_at_once(relay: RelayServer) -> None:
    """A relay for which the node waits in its back-off is tried at once, and found."""
    port = relay.addrs[0].port
    async with at_relay(relay.url) as endpoint:
        await _kill(relay)
        connection = endpoint._own.relays[0][1]._connections[endpoint.relays()[0].url]  # type: ignore[attr-defined]
        await until(lambda: not connection.connected)
        waits: list[float] = []
        connection._backoff.next = lambda *, wanted: waits.append(1000.0) or waits[-1]
        await until(lambda: bool(waits))
        async with RelayServer(RelayServerConfig.dev(listen=(f"127.0.0.1:{port}",))):
            await asyncio.sleep(0.2)
            assert not connection.connected
            endpoint.network_changed()
            await until(lambda: connection.connected)


async def test_an_endpoint_with_relays_closes_soon(relay: RelayServer) -> None:
    """Closing takes less than a second, with connections open and relays unreachable."""
    async with Endpoint.bind(config(relay.url, "http://127.0.0.1:9")) as endpoint:
        await home(endpoint)
        began = time.monotonic()
        await endpoint.close()
        assert time.monotonic() - began < 1.0 * SLACK
